"""How it is going, and what is wrong: what `tollhouse top` and `tollhouse doctor` ask for."""
