"""Every part of the package that benchmarks use: where one moves or gets another name, this file alone changes."""

# ruff: noqa: F401

from vislens_interp import zoo
from vislens_interp.atlas import run as atlas_run
from vislens_interp.atlas.atlas import Atlas
from vislens_interp.atlas.cluster import RayExecutor
from vislens_interp.atlas.population import describe_population, layer_map
from vislens_interp.atlas.readout import fit_readouts
from vislens_interp.atlas.run import run_shard
from vislens_interp.atlas.serve import site_server
from vislens_interp.atlas.site import write_site
from vislens_interp.atlas.sparse import units_of
from vislens_interp.atlas.sparse_training import train_sparse_features
from vislens_interp.atlas.store import open_atlas, read_manifest, short_hash, write_manifest, write_table
from vislens_interp.audit.prediction import average_precision
from vislens_interp.backends.base import DEFAULT_BACKEND, Backend, get_backend
from vislens_interp.backends.cache import RowCache, weights_fingerprint
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.diffusion.generator import PROMPT, StableDiffusionGenerator
from vislens_interp.backends.embedders import OpenCLIPEmbedder
from vislens_interp.backends.embedding import PAPER as PAPER_DEFAULTS
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.backends.retrieval import RetrievalBackend
from vislens_interp.brain import DINOV2, load_brainactiv, load_things_eeg, refuse_shared_images
from vislens_interp.brain.backbone import Backbone, Features
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.encoder import InSilicoEncoder
from vislens_interp.brain.experiment.blocks import Display
from vislens_interp.brain.experiment.experiment import Experiment
from vislens_interp.brain.fmri import load_algonauts
from vislens_interp.brain.planted import FEATURES, TUNINGS, Tuning
from vislens_interp.brain.planted import plant as plant_tuning
from vislens_interp.brain.predictivity import Predictivity, predictivity
from vislens_interp.brain.readouts import RidgeReadout
from vislens_interp.brain.simulate import SIMULATED, simulate_algonauts
from vislens_interp.brain.v4 import v4_encoder
from vislens_interp.config import Config, FitConfig
from vislens_interp.evaluation.compare import build as build_method
from vislens_interp.evaluation.comparison import Comparison
from vislens_interp.evaluation.transfer import Transfer
from vislens_interp.evaluation.words import edit_words, readout_of
from vislens_interp.files import fingerprint, load_state, save_state, write_atomically, write_bytes, write_text
from vislens_interp.images import ImageFiles, image_keys, load_images, resize
from vislens_interp.landscape.closed_form_init import closed_form_init
from vislens_interp.landscape.edit import interpolate
from vislens_interp.landscape.evidence import FEW_STRONG, WEAK_CORRELATION, WEAK_P
from vislens_interp.landscape.fit import fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler, Sense, kl_divergence
from vislens_interp.landscape.vae import VAE, BottleneckCVAE, EmbeddingVAE, sample_posterior
from vislens_interp.lens import FeatureLens
from vislens_interp.math import angle_between, pearson, ridge_gcv, ridge_loo, unit_rows
from vislens_interp.memory import keep_freed_memory
from vislens_interp.methods import method_by_name
from vislens_interp.methods.base import Method
from vislens_interp.methods.controls import Shuffled, Unedited
from vislens_interp.methods.directions import Centroids, DifferenceOfMeans, RidgeDirection, RidgePattern
from vislens_interp.methods.embedding_edit import DirectionEdit
from vislens_interp.methods.landscape import LandscapeEdit, LandscapeMethod
from vislens_interp.methods.natural_images import NaturalImages, RandomImages
from vislens_interp.methods.natural_spectrum import natural_spectrum, relative_contrast
from vislens_interp.methods.optimization import LandscapeOptimization
from vislens_interp.methods.prototypes import EditedPrototypes, Prototypes, likeness, prototype_rows
from vislens_interp.methods.standard_vae import ALGORITHM_3, StandardVAE
from vislens_interp.metrics.bootstrap import Interval, interval, paired_difference
from vislens_interp.metrics.pairwise import diversity
from vislens_interp.metrics.predictivity import predictivity as pairs_told
from vislens_interp.metrics.realism import frechet_distance, kernel_distance
from vislens_interp.metrics.response import interpolate_at, percentile_among
from vislens_interp.metrics.spectrum import spectrum_distance
from vislens_interp.models import load_model
from vislens_interp.preprocess import Preprocess
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets import LayerTarget
from vislens_interp.targets.callable import CallableTarget
from vislens_interp.targets.capture import run_to_layer
from vislens_interp.targets.cost import CountedTarget
from vislens_interp.targets.target import Target
from vislens_interp.targets.undisturbed import undisturbed
from vislens_interp.targets.whole_layer import all_units
from vislens_interp.training import vit_tiny64
from vislens_interp.training.data import pixels, read_images
