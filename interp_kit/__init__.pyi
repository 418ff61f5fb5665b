"""What an editor sees of `ik.`; `__init__.py` reads the same lines to know where each name lives."""

from . import course as course
from . import features as features
from . import formats as formats
from . import graphs as graphs
from . import lenses as lenses
from . import lit as lit
from . import models as models
from . import studies as studies
from . import transcoders as transcoders
from . import widgets as widgets
from . import worlds as worlds
from .features import FeatureStore as FeatureStore
from .features import collect_features as collect_features
from .features import label_features as label_features
from .features import load_features as load_features
from .features import load_labels as load_labels
from .features import score_labels as score_labels
from .graphs import AttributionGraph as AttributionGraph
from .graphs import Steer as Steer
from .graphs import attribute as attribute
from .graphs import intervene as intervene
from .graphs import load_graph as load_graph
from .graphs import swap as swap
from .graphs import validate as validate
from .lenses import side_by_side as side_by_side
from .models import LanguageModel as LanguageModel
from .models import load_model as load_model
from .transcoders import CrossLayerTranscoder as CrossLayerTranscoder
from .transcoders import evaluate_transcoder as evaluate_transcoder
from .transcoders import load_transcoder as load_transcoder
from .transcoders import plan_training as plan_training
from .transcoders import train_transcoder as train_transcoder
from .worlds import load_world as load_world

__version__: str
