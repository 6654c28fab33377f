"""Where the numbers and pictures of a run can be watched, beside its folder."""
