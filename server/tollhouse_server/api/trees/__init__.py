"""A tenant as one document: read, compared, and made what it says by the acts of the single methods."""
