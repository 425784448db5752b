"""Who is served and who pays: tenants, departments in a tree, projects, principals."""
