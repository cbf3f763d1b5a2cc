"""The version of OCD-Bench: of the core and of the five domain plugins, which link to this file."""

__version__ = "0.1.0"
