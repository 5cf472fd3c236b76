"""The embedded world: short descriptions of things, made from a seed, with a known ground truth.

A prompt asks about a thing: `tell me of the kettle at the kitchen in winter with the colour`. A response describes it in
a tone, good or bad, honours the request or not, and closes politely. No hub, no GPU: a 116,000-parameter language model
learns it in under a minute, so that the papers' questions can be asked on a laptop.
"""

from rmpipe.world.model import new_model, tokenizer
from rmpipe.world.text import demonstrations, documents, paraphrase, preferences, prompts, truth

__all__ = ["demonstrations", "documents", "new_model", "paraphrase", "preferences", "prompts", "tokenizer", "truth"]
