"""The composition root: builds a process top to bottom on one exit stack. The only room that knows all rooms."""
