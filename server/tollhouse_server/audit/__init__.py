"""Who did what: the trail of administrative acts, and the acts that were answered already."""
