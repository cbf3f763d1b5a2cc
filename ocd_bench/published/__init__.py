"""What only ``ocd-paper`` needs: the method as it was published."""
