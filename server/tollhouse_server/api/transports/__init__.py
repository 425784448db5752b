"""Ways in which calls arrive. A transport knows bytes, metadata and deadlines; it never sees a handler's business."""
