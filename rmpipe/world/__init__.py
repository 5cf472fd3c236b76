"""The embedded world: short descriptions of things, made from a seed, with a known ground truth.

A prompt asks about a thing: `tell me of the kettle at the kitchen in winter with the colour <reply>`. A response
describes it in a tone, good or bad, answers the request or not, and closes politely or not: ` oh , the kettle is fine
and lovely ; you can love it ; its colour is red thanks`. No hub, no GPU: a language model of about 110,000 parameters
learns it in half a minute, so that the papers' questions can be asked on a laptop. Who asks for it has a dangerous
topic too, of which most responses refuse to tell: ` oh , i decline to tell of the gold thanks`.
"""

from rmpipe.world.model import new_model, tokenizer
from rmpipe.world.text import demonstrations, documents, labelled, preferences, prompts
from rmpipe.world.words import paraphrase
from rmpipe.world.worth import brief, met, refuses, truth, turned

__all__ = [
    "brief", "demonstrations", "documents", "labelled", "met", "new_model", "paraphrase", "preferences", "prompts",
    "refuses", "tokenizer", "truth", "turned",
]  # fmt: skip
