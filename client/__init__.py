"""One party's side: the editing engine and the daemon."""
