"""What people type, and the composition root: the only place where the parts are put together."""
