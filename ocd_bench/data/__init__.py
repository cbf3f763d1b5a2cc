"""Datasets on disk: which there are, fetching them from their official places, verifying what lies there."""
