"""Frozen values and pure functions, without disks, databases or file formats; standard library only."""
