"""One file for each revision, never changed once released."""
