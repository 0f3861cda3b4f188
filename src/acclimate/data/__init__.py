"""From files on disk to batches: reading, geometry, colour, augmentation, views."""
