"""For every rule of ``check`` at least one function that breaks a good model, one file for each part of the model."""

from support.broken_deploy_models import ascend_operators, attributes, container, layers, operators
from support.broken_deploy_models.registry import BREAKS

__all__ = ["BREAKS", "ascend_operators", "attributes", "container", "layers", "operators"]
