"""Causal language models: load one by name, ask it for logits and next tokens.

This room imports torch; `interp_kit` itself imports it only when a name from here is first used.
"""

from .language_model import LanguageModel
from .loading import load_model
from .targets import Target
from .vocabulary import Vocabulary

__all__ = ["LanguageModel", "Target", "Vocabulary", "load_model"]
