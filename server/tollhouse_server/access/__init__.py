"""Who may do what: roles, grants on the nodes of the tree, and the one place that decides."""
