"""Methods: the entries of ``distill_cfg``, parsed, and their losses built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..dis_losses import LOSSES, DistillLoss
from ..errors import close_names, refusals_named
from ..features.taps import FORM_OF, Shape
from .schedules import LossWeight, Progress
from .wrappers import AT_STAGES, AtStages, CurriculumTemperature, at_stage, check_stages

# Inputs of losses beside features, and the full name of each short one.
GT_LABEL, SAMPLE_IDX, TEACHER_HEAD = 'gt_label', 'sample_idx', 'teacher_head'
STUDENT_LINEAR, TEACHER_LINEAR = ('student_weight', 'student_bias'), ('teacher_weight', 'teacher_bias')
ALIASES = {'feat_mid': 'feat_mid_s'}
#: Keys of a method's entry that are no keywords of its loss; the last is mmengine's, in configs of a package.
NO_KEYWORDS = ('type', 'name', 'use_this', 'loss_weight', 'stages', 'curriculum', 'task_weight', 'task_views', '_scope_')
#: Facts that a loss may be built with, beside sizes.
FACTS = ('num_samples', 'batch_size', 'teacher_weight', 'teacher_head', 'teacher_tail', 'teacher_norms')
#: The views of an image, each with the suffix of its features' names.
VIEWS = {'weak': '', 'strong': '_strong'}
#: Why no maps before the ReLU are found.
NO_PREACT = (
    ' (the stages’ maps before their ReLU, which are found where a module nn.ReLU ends each stage; the stages of {} end '
    'otherwise, so no method that compares these maps fits it)'
)
#: Why there is no linear classifier.
NO_LINEAR = ' (it needs {} whose class scores are one linear layer of the pooled map of its last stage, as a CNN’s are)'
#: Why an input may be missing.
REASONS = {
    **dict.fromkeys(STUDENT_LINEAR, NO_LINEAR.format('a student')),
    **dict.fromkeys(TEACHER_LINEAR, NO_LINEAR.format('one teacher')),
    'stages_preact_s': NO_PREACT.format('this student'),
    'stages_preact_t': NO_PREACT.format('this teacher'),
    TEACHER_HEAD: ' (it needs one teacher whose class scores are made of the pooled map of its last stage, as a CNN’s are)',
}
#: CTKD is a loss with a learnt temperature; the numbers are the authors'.
CTKD = dict(type='KDLoss', divergence=True, curriculum=dict(start=1.0, range=20.0, epochs=10))
#: Functions that find the class of a loss by its name, or return None; the first one that finds it counts.
FINDERS: list[Callable[[str], Any]] = [LOSSES.get]


def method_name(entry: Mapping) -> str:
    """Return the name of a method on the command line, without ``loss_``."""
    return str(entry['name']).removeprefix('loss_')


def loss_class(entry: Mapping) -> Any:
    """Return the class of a method's loss, given by itself or by its name; None for an unknown name."""
    kind = entry['type']
    return next(filter(None, (find(kind) for find in FINDERS)), None) if isinstance(kind, str) else kind


def known_losses() -> list[str]:
    """List the names of all losses that are defined, those of users included."""
    kinds = [DistillLoss]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return [kind.__name__ for kind in kinds[1:]]


def check_methods(wanted: Sequence[str], available: Sequence[str]) -> None:
    """Refuse unknown methods, or none at all; lists the available ones."""
    offers = f'this config offers: {", ".join(available)}'
    if not wanted:
        raise ValueError(f'no distillation method is chosen; {offers}')
    for name in wanted:
        if name not in available:
            raise ValueError(f'unknown method {name!r}{close_names(name, available)}; {offers}')


def offer(base: Mapping[str, Mapping], methods: Sequence[str], **settings: Mapping[str, Any]) -> list[dict]:
    """Make the ``distill_cfg`` of a distiller's config: every method of ``base``, the chosen ones switched on.

    Args:
        base: Keywords of each loss by method name, as a file under ``configs/_base_/methods/`` holds them.
        methods: The methods to switch on.
        **settings: Keywords that a pair adds to a method or changes, e.g. ``mgd=dict(student_channels=512, ...)``.

    Raises:
        ValueError: If a chosen or changed method is not in ``base``, or none is chosen.
    """
    for names in (methods, list(settings) or methods):
        check_methods(names, list(base))
    return [
        dict(methods=[dict(name=f'loss_{name}', use_this=name in methods, **{**keywords, **settings.get(name, {})})])
        for name, keywords in base.items()
    ]


@dataclass
class Method:
    """A method that is switched on.

    Attributes:
        name: Its name, under which its loss is logged.
        kind: The class of its loss.
        keywords: Keywords of this class.
        weight: Its ``loss_weight``.
        stages: Stages of its maps, see :class:`.wrappers.AtStages`; None for the last one.
        curriculum: Keywords of :class:`.wrappers.CurriculumTemperature`; None for a fixed temperature.
        loss: The loss itself, if it is given; None to build it.
        task_weight: Factor of the task loss; None for the loss's own.
        task_views: Views of the task loss, of :data:`VIEWS`; None for the loss's own.
    """

    name: str
    kind: type[nn.Module]
    keywords: dict[str, Any]
    weight: LossWeight
    stages: int | Sequence[int] | None = None
    curriculum: Mapping[str, Any] | None = None
    loss: nn.Module | None = None
    task_weight: float | None = None
    task_views: Sequence[str] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of its inputs: the parameters of its ``forward`` that have no default, and those that its keywords add.

        Raises:
            ValueError: If it has ``stages``, but reads no feature maps.
        """
        settings = self.keywords if self.loss is None else vars(self.loss)
        further = self.kind.further_inputs(settings) if hasattr(self.kind, 'further_inputs') else ()
        names = (*parameters_of(self.kind.forward), *further)
        if self.stages is None:
            return names
        if not set(names) & set(AT_STAGES):
            raise ValueError(f'{self.name}: stages is for losses of feat_s or feat_t; its inputs are {", ".join(names)}')
        return tuple(AT_STAGES.get(name, name) for name in names)

    @property
    def facts(self) -> dict[str, str]:
        """The name of the fact for each keyword of its loss that a fact fills in and its entry does not give."""
        if self.loss is not None:
            return {}
        named = zip(getattr(self.kind, 'facts', ()), facts_of(self.kind), strict=True)
        return {key: name for key, name in named if self.keywords.get(key) is None}

    def build(
        self,
        shapes: Mapping[str, Shape],
        facts: Mapping[str, Callable[[], Any]] | None = None,
        progress: Progress | None = None,
    ) -> nn.Module:
        """Build its loss; missing sizes and facts are filled in.

        Args:
            shapes: The shape of each input, by name, for two images; of a tuple the shapes of its tensors.
            facts: Facts about networks and data, by name; a loss lists the keywords that they fill in its ``facts``.
            progress: Place in the training, for a learnt temperature.

        Raises:
            ValueError: If a given size is wrong, a keyword does not fit, or a needed fact is unknown.
        """
        if self.curriculum is not None and not isinstance(self.curriculum, Mapping):
            raise ValueError(f'{self.name}: curriculum={self.curriculum!r} has to be a dict of start, range, epochs')
        with refusals_named(self.name):
            loss = self._at_stages(shapes, facts or {}) if self.stages is not None else self._build(shapes, facts or {})
            return loss if self.curriculum is None else CurriculumTemperature(loss, **self.curriculum, progress=progress)

    def _at_stages(self, shapes: Mapping[str, Shape], facts: Mapping[str, Callable[[], Any]]) -> AtStages:
        read = {name: shapes[of] for name, of in AT_STAGES.items() if of in self.inputs}
        numbers = check_stages(self.stages, {AT_STAGES[name]: len(shape) for name, shape in read.items()})
        losses = {}
        for number in numbers:
            maps = {name: at_stage(shape, number) for name, shape in read.items()}
            losses[number] = self._build({**shapes, **maps}, facts)
        return AtStages(losses)

    def _build(self, shapes: Mapping[str, Shape], facts: Mapping[str, Callable[[], Any]]) -> nn.Module:
        if self.loss is not None:
            return self._given(self.loss, shapes)
        keywords = dict(self.keywords)
        for keyword, (tensor, dim) in getattr(self.kind, 'sizes', {}).items():
            size = size_of(shapes.get(tensor, ()), dim)
            if size is None:
                raise ValueError(
                    f'{self.kind.__name__}.sizes says that {keyword} is size {dim} of {tensor!r}, which is not there; there '
                    f'are {", ".join(f"{n} {shape}" for n, shape in shapes.items())}'
                )
            given = keywords.setdefault(keyword, size)
            if (tuple(given) if isinstance(given, list) else given) != size:
                raise ValueError(
                    f'{keyword}={given} is wrong, {tensor} has the shape {shown_shape(shapes[tensor])}: set '
                    f'{keyword}={size}, or leave it out'
                )
        for keyword, fact in getattr(self.kind, 'facts', {}).items():
            name, made = fact if isinstance(fact, tuple) else (fact, None)
            if name not in FACTS:
                raise ValueError(
                    f'{self.kind.__name__}.facts says that {keyword} is {name!r}, which is no fact'
                    f'{close_names(name, FACTS)}; there are {", ".join(FACTS)}'
                )
            if keywords.get(keyword) is None and name in facts and (value := facts[name]()) is not None:
                keywords[keyword] = made(value) if made else value
        for keyword, message in getattr(self.kind, 'needed_facts', {}).items():
            if keywords.get(keyword) is None:
                raise ValueError(message)
        loss = self.kind(**keywords)
        if isinstance(loss, nn.Module) and '_modules' not in vars(loss):
            raise ValueError(f'{self.kind.__name__}.__init__ does not call super().__init__()')
        return loss

    def _given(self, loss: nn.Module, shapes: Mapping[str, Shape]) -> nn.Module:
        """Check the sizes of a given loss."""
        for keyword, (tensor, dim) in getattr(loss, 'sizes', {}).items():
            size, own = size_of(shapes.get(tensor, ()), dim), getattr(loss, keyword, None)
            if own is not None and size is not None and (tuple(own) if isinstance(own, list) else own) != size:
                raise ValueError(
                    f'it was built with {keyword}={own}, but {tensor} has the shape {shown_shape(shapes[tensor])}: build it '
                    f'with {keyword}={size}, or give its class, {type(loss).__name__}, whose sizes are found'
                )
        return loss


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a method's parameters that have no default."""
    _, *parameters = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in variable)


def size_of(shape: Shape, dim: int) -> Any:
    """Return a size of a tensor, or of each of a tuple's; None if it does not exist."""
    if shape and isinstance(shape[0], tuple):
        sizes = [size_of(part, dim) for part in shape]
        return None if None in sizes else tuple(sizes)
    return shape[dim] if dim < len(shape) else None


def shown_shape(shape: Shape) -> str:
    """Format a shape for messages."""
    if shape and isinstance(shape[0], tuple):
        return ', '.join(map(shown_shape, shape))
    return f'(N, {", ".join(map(str, shape[1:]))})'


class MethodList:
    """The methods of a config, and the only reader of its ``distill_cfg``.

    Args:
        distill_cfg: A list of ``dict(methods=[dict(type, name, use_this, ...), ...])``, or None.

    Attributes:
        entries: The dict of each method, switched on or not; the config's own.

    Raises:
        ValueError: If it has another form, or an entry lacks ``type`` or ``name``.
    """

    def __init__(self, distill_cfg: Sequence[Mapping] | None) -> None:
        self.entries: list[Any] = []
        for group in distill_cfg or []:
            if not isinstance(group, Mapping) or not isinstance(group.get('methods'), Sequence):
                raise ValueError(
                    f'distill_cfg is a list of dict(methods=[dict(type=..., name=...), ...]), but holds {group!r}'
                )
            for entry in group['methods']:
                if 'type' not in entry or 'name' not in entry:
                    raise ValueError(f'a method in distill_cfg needs `type` and `name`, but one is {dict(entry)!r}')
                self.entries.append(entry)

    @property
    def names(self) -> list[str]:
        """The names of all methods."""
        return [method_name(entry) for entry in self.entries]

    @property
    def active(self) -> list[Any]:
        """The dicts of the methods that are switched on."""
        return [entry for entry in self.entries if entry.get('use_this', True)]

    def select(self, names: Sequence[str]) -> None:
        """Switch the methods on or off, in place: exactly these are on afterwards.

        Raises:
            ValueError: If a method is unknown, or none is chosen.
        """
        check_methods(names, self.names)
        for entry in self.entries:
            entry['use_this'] = method_name(entry) in names

    def follow(self, names: Sequence[str]) -> None:
        """Apply a config's ``methods``, in place: a config that inherits from a distiller's may set them anew.

        Where a config replaces the inherited ``distill_cfg``, that decides, and the inherited ``methods`` are ignored.

        Raises:
            ValueError: As :meth:`select`.
        """
        if not names or any(name in self.names or close_names(name, self.names) for name in names):
            self.select(names)

    def need(self, fact: str) -> bool:
        """Check whether a method that is switched on has a keyword that a fact fills in, such as ``num_samples``."""
        return any(fact in facts_of(loss_class(entry)) for entry in self.active)

    def parsed(self) -> list[Method]:
        """Parse the methods that are switched on.

        Raises:
            ValueError: If none is switched on, a type is unknown (suggests close names), or a name stands twice.
        """
        check_methods([method_name(entry) for entry in self.active], self.names)
        methods: dict[str, Method] = {}
        for entry in self.active:
            if entry['name'] in methods:
                raise ValueError(f'two methods have the name {entry["name"]!r}; give each its own')
            methods[entry['name']] = parse_method(entry['name'], entry)
        return list(methods.values())


def parse_method(name: str, entry: Mapping[str, Any]) -> Method:
    """Parse the entry of a method.

    Args:
        name: Its name.
        entry: ``type``, the keywords of its loss, and ``loss_weight``, ``stages`` and ``curriculum``.

    Raises:
        ValueError: If the name is invalid, the type is unknown (suggests close names), or the weight does not fit.
    """
    kind = entry['type']
    if not isinstance(name, str) or not name or '.' in name or hasattr(nn.ModuleDict(), name):
        like = str(name).removeprefix('loss_').replace('.', '_')
        raise ValueError(f'a method cannot have the name {name!r}; take one such as loss_{like}_1')
    loss = loss_class(entry)
    if loss is None:
        raise ValueError(f'{name}: unknown loss type {kind!r}{close_names(kind, known_losses())}')
    if not hasattr(loss, 'forward'):
        raise ValueError(f'{name}: {kind!r} is no loss, a module with a `forward` whose parameters are its inputs')
    try:
        weight = LossWeight.of(entry.get('loss_weight', 1.0))
    except ValueError as error:
        raise ValueError(f'{name}: {error}') from error
    keywords = {key: value for key, value in entry.items() if key not in NO_KEYWORDS}
    task_weight, task_views = entry.get('task_weight'), entry.get('task_views')
    if task_weight is not None and (isinstance(task_weight, bool) or not isinstance(task_weight, (int, float))):
        raise ValueError(f'{name}: task_weight={task_weight!r}: give a number, the factor of the task loss')
    if task_views is not None and (not isinstance(task_views, (list, tuple)) or not task_views or {*task_views} - {*VIEWS}):
        raise ValueError(f"{name}: task_views={task_views!r}: give a list of 'weak', 'strong' or both")
    stages, curriculum = entry.get('stages'), entry.get('curriculum')
    return Method(name, loss, keywords, weight, stages, curriculum, task_weight=task_weight, task_views=task_views)


def method_of(given: Any, name: str | None = None) -> Method:
    """Parse a loss given in plain PyTorch code.

    Args:
        given: A loss, its class, its name (``'nkd'``, ``'NKDLoss'``), or a dict as in :func:`parse_method`, whose ``type``
            is one of these.
        name: Its name; the dict's ``name``, or that of the method (``'nkd'``), if None.

    Raises:
        ValueError: As :func:`parse_method`; or if it is none of these.
    """
    entry = dict(given) if isinstance(given, Mapping) else dict(type=given)
    if entry.get('type') == 'ctkd':
        entry = {'name': name or 'ctkd', **CTKD, **{key: value for key, value in entry.items() if key != 'type'}}
    loss = entry['type'] if isinstance(entry.get('type'), nn.Module) else None
    if loss is not None:
        entry['type'] = type(loss)
    if isinstance(kind := entry.get('type'), str):
        short = {_short(known): known for known in LOSSES}
        entry['type'] = LOSSES[kind] if kind in LOSSES else LOSSES.get(short.get(_short(kind), ''))
        if entry['type'] is None:
            raise ValueError(f'there is no loss {kind!r}{close_names(kind, [*short, "ctkd", *LOSSES])}')
    if not isinstance(entry.get('type'), type) or not issubclass(entry['type'], nn.Module):
        raise ValueError(f'losses: {given!r} is no loss: give a loss, its class, its name, or a dict with its `type`')
    own = kind if isinstance(kind, str) and kind not in LOSSES else _short(entry['type'].__name__)
    method = parse_method(entry.get('name', own) if name is None else name, entry)
    if loss is not None and (unused := [*method.keywords, *(['stages'] if method.stages is not None else [])]):
        raise ValueError(f'{method.name}: {", ".join(unused)} would change a loss that is built: give its class as `type`')
    method.loss = loss
    return method


def _short(name: str) -> str:
    """Return the short name of a method or of its loss's class, without underscores."""
    return (name.replace('_', '').removesuffix('Loss') or name).lower()


def check_several(methods: Iterable[Method]) -> None:
    """Refuse methods that need features which several teachers do not have in common."""
    for method in methods:
        known = ('logit_t', 'vector_t') if getattr(method.kind, 'several_teachers', False) else ('logit_t',)
        if beyond := next((name for name in method.inputs if needs_teacher(name) and weak_name(name) not in known), None):
            raise ValueError(
                f'several teachers have no common features, and {method.name} needs {beyond!r}: choose methods that need '
                'logits alone, or one teacher'
            )


def check_class_scores(methods: Iterable[Method], available: Sequence[str], student: int, teacher: int | None) -> None:
    """Refuse methods that need class scores of a network without classes, and list those that fit.

    Args:
        methods: The methods.
        available: Names of the available inputs.
        student: The student's number of classes; 0 if it has none.
        teacher: The teacher's; None without a teacher.

    Raises:
        ValueError: Names the method, the network without classes, and the methods whose inputs are all available.
    """
    lacking = dict.fromkeys(('logit_s', GT_LABEL, *STUDENT_LINEAR), 'student') if student == 0 else {}
    lacking |= dict.fromkeys(('logit_t', TEACHER_HEAD, *TEACHER_LINEAR), 'teacher') if teacher == 0 else {}
    for method in methods:
        facts = {*facts_of(method.kind)} - {*TEACHER_LINEAR}  # the weight as a fact may be missing
        names = (*map(weak_name, method.inputs), *facts)
        if name := next((name for name in names if name in lacking), None):
            known = {*available, *ALIASES} - {*lacking}
            needs = {kind: {*parameters_of(loss.forward), *lacking.keys() & facts_of(loss)} for kind, loss in LOSSES.items()}
            fitting = [_short(kind) for kind, names in needs.items() if names <= known]
            raise ValueError(
                f'{method.name} ({method.kind.__name__}) needs {name!r}, and the {lacking[name]} has no classes: choose '
                f'losses that compare features, of which these fit: {", ".join(fitting)}'
            )


def facts_of(kind: type) -> list[str]:
    """List the names of the facts that a loss may need."""
    return [fact if isinstance(fact, str) else fact[0] for fact in getattr(kind, 'facts', {}).values()]


def check_inputs(methods: Iterable[Method], available: Sequence[str]) -> None:
    """Refuse methods with an unknown input.

    Args:
        methods: The methods.
        available: Names of the available inputs; each feature is there of the strong view, too.

    Raises:
        ValueError: Names the method, the input, and the available ones.
    """
    for method in methods:
        for name in method.inputs:
            of_weak = weak_name(name)
            if of_weak not in available or (of_weak != name and not of_weak.endswith(('_s', '_t'))):
                raise ValueError(
                    f'{method.name} ({method.kind.__name__}): unknown input {name!r}'
                    f'{_why_unknown(of_weak, available)}; available inputs: {", ".join(available)}; '
                    'define others with taps (model.taps in a config)'
                )


def _why_unknown(name: str, available: Sequence[str]) -> str:
    """Say why an input is unknown: a feature that this network lacks, or a name like another one of the same network."""
    side = {'_s': 'student', '_t': 'teacher'}.get(name[-2:])
    if name in REASONS:
        return REASONS[name]
    if ALIASES.get(name, name)[:-2] in FORM_OF:
        return f', a feature that is not found in this {side or "student"}'
    return close_names(name, [known for known in available if not side or known.endswith(name[-2:])])


def needs_teacher(name: str) -> bool:
    """Check whether an input comes from the teacher."""
    return name in (TEACHER_HEAD, *TEACHER_LINEAR) or weak_name(name).endswith('_t')


def weak_name(name: str) -> str:
    """Return the name of an input without the suffix of the strong view.

    Example:
        >>> weak_name('logit_s_strong'), weak_name('logit_s')
        ('logit_s', 'logit_s')
    """
    return name.removesuffix(VIEWS['strong'])
