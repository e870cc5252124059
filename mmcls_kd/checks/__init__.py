"""Checks before training: data, labels, images, schedules, and a first batch through the model."""
