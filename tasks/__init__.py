"""The verbs: one file, one cached stage."""
