"""A look at teacher and student before a training, and at what came of several trainings after it."""
