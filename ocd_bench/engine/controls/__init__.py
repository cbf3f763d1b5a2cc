"""What only the controls need: other ways to use the same targets and conditions, to tell what makes the difference."""
