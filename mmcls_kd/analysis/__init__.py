"""Analysis of teacher and student before a training, and of several trainings after it."""
