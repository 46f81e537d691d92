"""What is learned from: images of digits, and distributions in the plane."""

from dmlib.data.images import DIGIT_LEVELS, MNIST_LEVELS, digit_labels, digits, mnist, mnist_labels
from dmlib.data.toys import checkerboard, eight_gaussians, spiral, two_moons
