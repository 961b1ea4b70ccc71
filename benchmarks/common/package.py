"""Every part of the package that benchmarks use: where one moves or gets another name, this file alone changes."""

# ruff: noqa: F401

from vislens_interp import zoo
from vislens_interp.backends.base import DEFAULT_BACKEND, Backend, Defaults, get_backend
from vislens_interp.backends.cache import RowCache, weights_fingerprint
from vislens_interp.backends.embedded import DEFAULTS as EMBEDDED_DEFAULTS
from vislens_interp.backends.embedded import LATENT_DIM, NOISE, embedded
from vislens_interp.backends.embedders import OpenCLIPEmbedder
from vislens_interp.backends.embedding import PAPER as PAPER_DEFAULTS
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.backends.retrieval import RetrievalBackend
from vislens_interp.backends.stable_diffusion import PROMPT, StableDiffusionGenerator
from vislens_interp.baselines import method as method_by_name
from vislens_interp.baselines.centroids import Centroids
from vislens_interp.baselines.controls import Shuffled, Unedited
from vislens_interp.baselines.difference_of_means import DifferenceOfMeans
from vislens_interp.baselines.embedding_edit import DirectionEdit
from vislens_interp.baselines.natural_images import NaturalImages, RandomImages
from vislens_interp.baselines.natural_spectrum import natural_spectrum
from vislens_interp.baselines.ridge_direction import RidgeDirection
from vislens_interp.baselines.ridge_pattern import RidgePattern
from vislens_interp.baselines.standard_vae import ALGORITHM_3, StandardVAE
from vislens_interp.brain import DINOV2, load_brainactiv, load_things_eeg, refuse_shared_images
from vislens_interp.brain.backbone import Backbone, Features
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.encoder import InSilicoEncoder
from vislens_interp.brain.fmri import load_algonauts
from vislens_interp.brain.planted import FEATURES, TUNINGS, Tuning
from vislens_interp.brain.planted import plant as plant_tuning
from vislens_interp.brain.predictivity import Predictivity, predictivity
from vislens_interp.brain.readouts import RidgeReadout
from vislens_interp.brain.simulate import SIMULATED, simulate_algonauts
from vislens_interp.brain.v4 import v4_encoder
from vislens_interp.compare import build as build_method
from vislens_interp.comparison import Comparison
from vislens_interp.files import fingerprint, load_state, save_state, write_atomically, write_text
from vislens_interp.images import ImageFiles, Preprocess, image_keys, resize
from vislens_interp.landscape.edit import angle_between, interpolate
from vislens_interp.landscape.evidence import FEW_STRONG, WEAK_CORRELATION, WEAK_P
from vislens_interp.landscape.fit import FitSettings, fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, Direction, ResponseScaler, kl_divergence
from vislens_interp.landscape.start import organise
from vislens_interp.landscape.vae import VAE, BottleneckCVAE, EmbeddingVAE, sample_posterior
from vislens_interp.lens import FeatureLens
from vislens_interp.method import LandscapeMethod
from vislens_interp.metrics.bootstrap import Interval, interval, paired_difference
from vislens_interp.metrics.pairwise import diversity
from vislens_interp.metrics.realism import frechet_distance, kernel_distance
from vislens_interp.metrics.response import interpolate_at, percentile_among
from vislens_interp.metrics.spectrum import spectrum_distance
from vislens_interp.metrics.transfer import Transfer
from vislens_interp.targets import LayerTarget
from vislens_interp.targets.capture import run_to_layer, undisturbed
from vislens_interp.targets.cost import CountedTarget
from vislens_interp.targets.target import Target
from vislens_interp.targets.whole_layer import all_units
from vislens_interp.training import vit_tiny64
from vislens_interp.training.data import pixels, read_images
from vislens_interp.zoo.embedder import Embedder64
