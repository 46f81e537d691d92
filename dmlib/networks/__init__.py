"""What learns: networks, each built from a plain dictionary."""

from dmlib.networks.codes import CodeEncoder, CodePrior
from dmlib.networks.convolutional import Classifier, ConvDecoder, ConvEncoder
from dmlib.networks.mlp import MLP, Decoder, GaussianEncoder, TimeMLP
from dmlib.networks.models import MODELS, build, conv_vae, hvae, vae, vqvae
from dmlib.networks.reduced import precision
from dmlib.networks.unet import Attention, ResidualBlock, UNet, time_features
