"""``@task.nemo``: a function that returns the config to run, like ``@task.bash`` for a command.

The function itself runs in the worker, with the outputs of upstream tasks and mapped values as
its arguments; its config runs as a job.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from airflow.sdk import literal
from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION
from airflow.sdk.definitions.context import Context, context_merge
from airflow.sdk.exceptions import AirflowFailException

from nemo_airflow.config.objects.leaves import iter_leaves, map_leaves
from nemo_airflow.config.types.graph import is_template
from nemo_airflow.operators.arguments import Argument
from nemo_airflow.operators.run import NemoRunOperator


class NemoDecoratedOperator(DecoratedOperator, NemoRunOperator):
    """Runs the config that a function returns. See :class:`NemoRunOperator` for the other arguments.

    Args:
        python_callable: The function.
        op_args: Its positional arguments; may be templates.
        op_kwargs: Its keyword arguments; may be templates.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *NemoRunOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **NemoRunOperator.template_fields_renderers,
    }
    custom_operator_name: str = "@task.nemo"
    overwrite_rtif_after_execution: bool = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if "config" in kwargs:
            raise TypeError("@task.nemo takes no config argument: return the config from the decorated function")
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, config=SET_DURING_EXECUTION, **kwargs
        )

    def execute(self, context: Context) -> Any:
        """Calls the function for its config, and runs the config."""
        # A text that came as an argument is a value: it was rendered, or is the output of another task.
        values = {leaf for _, leaf in iter_leaves([list(self.op_args), dict(self.op_kwargs)]) if is_template(leaf)}
        context_merge(context, self.op_kwargs)
        config = self.python_callable(*self.op_args, **self.determine_kwargs(context))
        if config is None:
            name = self.python_callable.__name__
            raise AirflowFailException(
                f"@task.nemo function {name} returned None: it has to return a Config, Partial or Script"
            )
        if values:
            config = map_leaves(
                config, lambda _, leaf: literal(leaf) if isinstance(leaf, str) and leaf in values else leaf
            )
        self.config = Argument(config).resolve(context)
        return NemoRunOperator.execute(self, context)


def nemo_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turns a function that returns a config into a task that runs the config.

    Args:
        python_callable: The function to decorate.
        kwargs: Arguments of :class:`NemoRunOperator` except ``config``.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=NemoDecoratedOperator, **kwargs
    )
