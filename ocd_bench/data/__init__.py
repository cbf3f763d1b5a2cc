"""Datasets on disk: list them, download them from their official addresses, verify the files."""
