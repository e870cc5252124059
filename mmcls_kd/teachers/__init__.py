"""Teachers: frozen networks, several as one, and logits stored on disk."""

from .frozen import FrozenTeacher
from .several import TeacherGroup
from .store import TeacherStore
from .stored import StoredTeacher, store_logits
from .zero_shot import zero_shot_classifier

__all__ = ['FrozenTeacher', 'StoredTeacher', 'TeacherGroup', 'TeacherStore', 'store_logits', 'zero_shot_classifier']
