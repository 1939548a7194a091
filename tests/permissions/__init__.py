"""Who may do what: the matrix of operations and subjects, grants, protected branches, tokens, and attempts to get around."""
