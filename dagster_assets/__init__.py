"""The example code location: the flights that left New York City in 2013, from delivered files to a report.

Uses the public surface of dataset_registry alone.
"""
