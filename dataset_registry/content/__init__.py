"""Writing and reading content: stage, change, capture, pack, upload, register, read."""
