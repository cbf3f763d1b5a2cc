"""Modules that only ``ocd-paper`` uses: the method as published."""
