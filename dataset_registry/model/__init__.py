"""What things are: frozen values and pure functions. Knows nothing of disks, databases or formats; standard library only."""
