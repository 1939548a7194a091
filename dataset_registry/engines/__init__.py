"""Versions for other engines: as a file system, and as partitioned tables that several processes read and write together."""
