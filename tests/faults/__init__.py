"""Faults of disks, machines, servers and other people's runs: nothing is lost, nothing let in."""
