"""The questions: one file, one inquiry."""
