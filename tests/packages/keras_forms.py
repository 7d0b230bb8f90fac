#!/usr/bin/env python3
"""Models in the many forms that Keras saves, with random weights and statistics: each is read and computes what Keras
computes, or is refused by name with a way out.

    pip install tensorflow-cpu==2.21.0 keras-hub==0.32.0 tf_keras pillow numpy
    cargo build --release && tests/packages/keras_forms.py [NAME...]

A model of Keras Applications is also given a picture file, which must be prepared as its package does. Prints a line for
each form, and fails where logarithms of probabilities differ by more than 1e-3 of the largest, or where the wrong thing is
refused.
"""
import os
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import keras_hub
import numpy as np
import tf_keras
from common import convert, log_softmax, picture_logits, randomize_keras, tensor_logits
from keras import layers as L
from PIL import Image

random = np.random.default_rng(7)
applications = keras.applications
BYTES, UNIT = (0, 255), (-1, 1)
# Name, model, range of its input, and what else is known of it.
forms = []


def form(name, model, ends, kinds=(".keras", ".h5"), **known):
    forms.append((name, model, ends, kinds, known))


def conv(x, filters, filter=3, bias=False, lib=L, **options):
    x = lib.Conv2D(filters, filter, padding="same", use_bias=bias, **options)(x)
    return lib.BatchNormalization(beta_initializer="random_normal")(x)


def residual(x, filters, stride=1, lib=L, relu=None):
    relu = relu or lib.ReLU
    y = relu()(conv(x, filters, strides=stride, lib=lib))
    y = conv(y, filters, lib=lib)
    if stride > 1 or x.shape[-1] != filters:
        x = conv(x, filters, 1, strides=stride, lib=lib)
    return relu()(lib.Add()([x, y]))


def trunk(x, lib=L):
    """A small ResNet."""
    x = lib.ReLU()(conv(x, 8, lib=lib))
    for filters, stride in [(8, 1), (12, 2), (16, 2)]:
        x = residual(x, filters, stride, lib)
    return x


def head(x, lib=L, **options):
    return lib.Dense(5, **options)(lib.Dropout(0.2)(lib.GlobalAveragePooling2D()(x)))


def functional(build, shape=(32, 32, 3), lib=keras):
    x = lib.Input(shape)
    return lib.Model(x, build(x))


def before(*layers, **options):
    """A small ResNet behind layers."""
    def build(x):
        for layer in layers:
            x = layer(x)
        return head(trunk(x), **options)
    return functional(build)


# Plain ResNets, and how they end.
form("resnet", lambda: before(), UNIT, trains=True)
form("resnet, softmax", lambda: before(activation="softmax"), UNIT, trains=True)
form("resnet, softmax layer", lambda: functional(lambda x: L.Softmax()(head(trunk(x)))), UNIT, trains=True)
form("resnet, softmax as activation", lambda: functional(lambda x: L.Activation("softmax")(head(trunk(x)))), UNIT)
form("resnet, max pooling", lambda: functional(lambda x: L.Dense(5)(L.GlobalMaxPooling2D()(trunk(x)))), UNIT, trains=True)
form("resnet, average pool and flatten", lambda: functional(lambda x: L.Dense(5)(L.Flatten()(L.AveragePooling2D(8)(trunk(x))))), UNIT, trains=True)
form("resnet, odd sides", lambda: functional(lambda x: head(trunk(x)), (37, 45, 3)), UNIT, trains=True)
form("resnet, keepdims and dense of a map", lambda: functional(lambda x: L.Flatten()(L.Dense(5)(L.GlobalAveragePooling2D(keepdims=True)(trunk(x))))), UNIT)
form("resnet, two dense layers", lambda: functional(lambda x: L.Dense(5)(L.Dense(9, activation="relu")(L.GlobalAveragePooling2D()(trunk(x))))), UNIT)
form("resnet, operators", lambda: functional(lambda x: keras.ops.softmax(L.Dense(5)(keras.ops.mean(keras.ops.relu(conv(x, 8) + conv(x, 8, 1)), axis=[1, 2])))), UNIT, softmax=True)

# Layers before it: augmentation, scales, statistics.
form("augmentation", lambda: before(keras.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1), L.RandomZoom(0.2), L.RandomContrast(0.2), L.RandomTranslation(0.1, 0.1)]), L.Rescaling(1 / 255)), BYTES, trains=True)
form("augmentation, flat", lambda: before(L.RandomFlip(), L.GaussianNoise(0.1), L.RandomBrightness(0.2), L.RandomShear(0.1, 0.1), L.RandomHue(0.1), L.RandomErasing(), L.Rescaling(1 / 255)), BYTES, kinds=[".keras"], trains=True)
form("augmentation, newer", lambda: before(L.RandAugment(), L.RandomColorJitter(), L.RandomGrayscale(), L.RandomSharpness(0.1), L.RandomSaturation(0.1), L.RandomPerspective(), L.Rescaling(1 / 255)), BYTES, kinds=[".keras"])
form("rescaling to -1..1", lambda: before(L.Rescaling(1 / 127.5, offset=-1)), BYTES, trains=True)
form("rescaling by channel", lambda: before(L.Rescaling([1 / 58.0, 1 / 57.0, 1 / 57.5], offset=[-2.1, -2.0, -1.8])), BYTES, trains=True)
form("rescaling twice", lambda: before(L.Rescaling(1 / 255), L.Rescaling(2.0, offset=-1)), BYTES, trains=True)
form("normalization by settings", lambda: before(L.Rescaling(1 / 255), L.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.229**2, 0.224**2, 0.225**2])), BYTES, trains=True)


def adapted():
    layer = L.Normalization()
    layer.adapt(random.uniform(0, 255, (20, 32, 32, 3)) * [1, 0.7, 0.5])
    return layer


form("normalization adapted", lambda: before(adapted()), BYTES, trains=True)
form("normalization of all", lambda: before(L.Normalization(axis=None, mean=120.0, variance=3000.0)), BYTES)
form("normalization in a model", lambda: before(keras.Sequential([keras.Input((32, 32, 3)), adapted()])), BYTES)
form("preprocess_input, -1..1", lambda: before(applications.resnet_v2.preprocess_input), BYTES, trains=True)
form("preprocess_input, Caffe's", lambda: before(applications.resnet.preprocess_input), BYTES)
form("preprocess_input, PyTorch's", lambda: before(lambda x: applications.imagenet_utils.preprocess_input(x, mode="torch")), BYTES)
form("channels reversed", lambda: before(lambda x: x[..., ::-1], L.Rescaling(1 / 255)), BYTES)
form("arithmetic", lambda: before(lambda x: (x / 255.0 - np.array([0.4, 0.5, 0.6], "float32")) * 2.0), BYTES, trains=True)
form("resizing to its own size", lambda: before(L.Resizing(32, 32), L.Rescaling(1 / 255)), BYTES, trains=True)
form("center crop of its own size", lambda: before(L.CenterCrop(32, 32), L.Rescaling(1 / 255)), BYTES)
form("resizing of any size", lambda: functional(lambda x: head(trunk(L.Rescaling(1 / 255)(L.Resizing(32, 32)(x)))), (None, None, 3)), BYTES, x=(32, 32))
form("any size", lambda: functional(lambda x: head(trunk(x)), (None, None, 3)), UNIT, x=(48, 48), options=["--input-size", 48])

# Models in models.
base = lambda **o: functional(trunk, **o)
form("nested base", lambda: before_base(), UNIT, trains=True)
form("nested twice", lambda: before_base(2), UNIT, trains=True)
form("sequential around a base", lambda: keras.Sequential([keras.Input((32, 32, 3)), L.RandomFlip(), L.Rescaling(1 / 255), base(), L.GlobalAveragePooling2D(), L.Dense(5, activation="softmax")]), BYTES, trains=True)
form("nested classifier", lambda: functional(lambda x: functional(lambda y: head(trunk(y)))(L.Rescaling(1 / 255)(x))), BYTES, trains=True)
form("two bases in turn", lambda: two_bases(), UNIT)
form("a layer called twice", lambda: shared(), UNIT)


def before_base(depth=1):
    model = base()
    for _ in range(depth - 1):
        inner = model
        model = functional(lambda x: inner(x))
    return functional(lambda x: head(model(x, training=False)))


def two_bases():
    one = keras.Sequential([keras.Input((32, 32, 3)), L.Conv2D(6, 3, activation="relu", name="conv"), L.MaxPooling2D()], name="one")
    two = keras.Sequential([keras.Input((15, 15, 6)), L.Conv2D(8, 3, activation="relu", name="conv"), L.MaxPooling2D()], name="two")
    return functional(lambda x: head(two(one(x))))


def shared():
    relu, conv = L.ReLU(), L.Conv2D(8, 3, padding="same")
    return functional(lambda x: head(relu(conv(relu(conv(relu(L.Conv2D(8, 3)(x))))))))


# Sequential models.
form("sequential", lambda: keras.Sequential([keras.Input((28, 28, 3)), L.Conv2D(8, 3, activation="relu"), L.MaxPooling2D(), L.Conv2D(12, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dropout(0.5), L.Dense(20, activation="relu"), L.Dense(5, activation="softmax")]), UNIT)
form("sequential without Input", lambda: keras.Sequential([L.Rescaling(1 / 255, input_shape=(28, 28, 3)), L.Conv2D(8, 5, strides=2), L.BatchNormalization(), L.Activation("relu"), L.AveragePooling2D(3, strides=2, padding="same"), L.Flatten(), L.Dense(5)]), BYTES)
form("sequential, built", lambda: built(), UNIT)
form("sequential, zero padding", lambda: keras.Sequential([keras.Input((33, 30, 3)), L.ZeroPadding2D(3), L.Conv2D(8, 7, strides=2), L.ReLU(), L.ZeroPadding2D(((0, 1), (0, 1))), L.MaxPooling2D(3, 2), L.ZeroPadding2D((1, 2)), L.AveragePooling2D(3, 2), L.GlobalAveragePooling2D(), L.Dense(5)]), UNIT)
form("sequential, batch-norms of half", lambda: keras.Sequential([keras.Input((20, 20, 3)), L.BatchNormalization(scale=False), L.Conv2D(8, 3, use_bias=False), L.BatchNormalization(center=False), L.ReLU(), L.Conv2D(8, 3), L.BatchNormalization(center=False, scale=False, epsilon=0.01), L.MaxPooling2D(), L.ReLU(), L.GlobalMaxPooling2D(), L.BatchNormalization(), L.Dense(5)]), UNIT)
form("sequential, dense alone", lambda: keras.Sequential([keras.Input((8, 8, 3)), L.Rescaling(1 / 255), L.Flatten(), L.Dense(16, activation="relu"), L.Dense(5)]), BYTES)
form("sequential, other filters", lambda: keras.Sequential([keras.Input((24, 40, 3)), L.Conv2D(8, (3, 5), strides=(1, 2), padding="same", activation="relu"), L.MaxPooling2D((1, 2)), L.SpatialDropout2D(0.1), L.Conv2D(8, (1, 7)), L.Reshape((-1,)), L.Dense(5)]), UNIT)
form("sequential, reshape", lambda: keras.Sequential([keras.Input((12, 12, 3)), L.Conv2D(4, 3, activation="relu"), L.Identity(), L.ActivityRegularization(), L.Flatten(), L.Dense(5, use_bias=False)]), UNIT)


def built():
    model = keras.Sequential([L.Conv2D(6, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(5)])
    model.build((None, 16, 16, 3))
    return model


# Sums and clamps that no convolution takes up.
form("sum of activated maps", lambda: functional(lambda x: head(L.Add()([L.ReLU()(conv(x, 6)), L.ReLU()(conv(x, 6))]))), UNIT)
form("sum of three", lambda: functional(lambda x: head(L.Add()([conv(x, 6), L.ReLU()(conv(x, 6)), conv(x, 6, 1)]))), UNIT)
form("clamp after a pool", lambda: functional(lambda x: head(L.ReLU()(L.MaxPooling2D()(conv(x, 6))))), UNIT)

# Depthwise and grouped convolutions, activations and gates.
form("depthwise", lambda: functional(lambda x: head(L.DepthwiseConv2D(3)(x))), UNIT)
form("separable", lambda: functional(lambda x: head(L.SeparableConv2D(8, 3)(x))), UNIT)
form("dilated", lambda: functional(lambda x: head(L.DepthwiseConv2D(3, dilation_rate=2)(L.Conv2D(8, 3, padding="same", dilation_rate=(2, 3))(x)))), UNIT)
form("groups", lambda: functional(lambda x: head(L.Conv2D(8, 3, groups=2)(L.Conv2D(8, 3)(x)))), UNIT)
form("ReLU6", lambda: functional(lambda x: head(L.ReLU(6.0)(conv(x, 4)))), UNIT)
form("curves", lambda: functional(lambda x: head(L.Conv2D(4, 1, activation="hard_silu")(L.Activation("hard_sigmoid")(L.Conv2D(4, 3, activation="silu")(x))))), UNIT)
form("gate", lambda: functional(lambda x: head(L.Multiply()([x, L.Reshape((1, 1, 3))(L.Dense(3, activation="sigmoid")(L.GlobalAveragePooling2D()(x)))]))), UNIT)
form("gelu", lambda: functional(lambda x: head(L.Conv2D(4, 3, activation="gelu")(x))), UNIT)

# Numbers of other kinds, and what training leaves in the file.
form("mixed_float16", lambda: with_policy("mixed_float16"), UNIT, tolerance=2e-2)
form("float16", lambda: with_policy("float16"), UNIT, tolerance=2e-2)
form("bfloat16", lambda: with_policy("bfloat16"), UNIT, kinds=[".keras"], tolerance=1e-1)
form("compiled and trained", lambda: trained(), BYTES, trains=True)
form("frozen base", lambda: frozen(), UNIT)


def with_policy(policy):
    keras.config.set_dtype_policy(policy)
    model = functional(lambda x: L.Dense(5, dtype="float32")(L.GlobalAveragePooling2D()(trunk(x))))
    keras.config.set_dtype_policy("float32")
    return model


def trained():
    model = before(L.RandomFlip(), L.Rescaling(1 / 255), activation="softmax")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(random.uniform(0, 255, (8, 32, 32, 3)), np.arange(8) % 5, verbose=0)
    return model


def frozen():
    model = base()
    model.trainable = False
    return functional(lambda x: head(model(x, training=False)))


# Keras Applications.
def application(name, **options):
    return lambda: getattr(applications, name)(**{"weights": None, "input_shape": (64, 64, 3), "classes": 6, "classifier_activation": None} | options)


for name, prepare in [("ResNet50", "resnet"), ("ResNet101", "resnet"), ("ResNet152", "resnet"), ("ResNet50V2", "resnet_v2"), ("ResNet101V2", "resnet_v2"), ("ResNet152V2", "resnet_v2")]:
    form(name, application(name), BYTES, kinds=(".keras", ".h5", ".weights.h5"), prepare=prepare)
form("VGG16", application("VGG16", input_shape=(32, 32, 3)), BYTES, kinds=[".keras"], prepare="vgg16")
form("ResNet50, nested", lambda: on_base(nested=True), BYTES, prepare="resnet")
form("ResNet50, extended", lambda: on_base(nested=False), BYTES, prepare="resnet")
form("ResNet50 behind its preprocess_input", lambda: on_base(True, applications.resnet.preprocess_input), BYTES)
form("ResNet50 behind augmentation", lambda: on_base(True, L.RandomFlip()), BYTES, prepare="resnet")
form("ResNet50 behind rescaling", lambda: on_base(True, L.Rescaling(1 / 255)), BYTES)
form("ResNet50V2, nested", lambda: on_base(True, name="ResNet50V2"), BYTES, prepare="resnet_v2")
form("ResNet50V2 behind its preprocess_input", lambda: on_base(True, applications.resnet_v2.preprocess_input, "ResNet50V2"), BYTES)
form("ResNet50, pooled", lambda: on_base(True, pooling="avg"), BYTES, prepare="resnet")


def on_base(nested, before=None, name="ResNet50", pooling=None):
    base = getattr(applications, name)(weights=None, include_top=False, input_shape=(64, 64, 3), pooling=pooling)
    pool = (lambda x: x) if pooling else L.GlobalAveragePooling2D()
    if not nested:
        return keras.Model(base.input, L.Dense(6)(pool(base.output)))
    return functional(lambda x: L.Dense(6)(pool(base(before(x) if before else x, training=False))), (64, 64, 3))


# KerasHub.
def backbone(shape=(64, 64, 3), **options):
    known = {"input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2], "block_type": "basic_block", "image_shape": shape}
    return keras_hub.models.ResNetBackbone(**known | options)


form("hub, functional", lambda: functional(lambda x: head(backbone()(x)), (64, 64, 3)), UNIT, trains=True)
form("hub, rescaling inside", lambda: functional(lambda x: head(backbone()(L.Rescaling(1 / 127.5, offset=-1)(L.RandomFlip()(x)))), (64, 64, 3)), BYTES, trains=True)
form("hub, sequential", lambda: keras.Sequential([keras.Input((64, 64, 3)), L.Rescaling(1 / 255), backbone(), L.GlobalAveragePooling2D(), L.Dense(5, activation="softmax")]), BYTES, trains=True)
form("hub, v2", lambda: functional(lambda x: head(backbone(block_type="bottleneck_block", use_pre_activation=True)(L.Rescaling(1 / 255)(x))), (64, 64, 3)), BYTES, trains=True)
form("hub, vd", lambda: functional(lambda x: head(backbone(block_type="bottleneck_block_vd", input_conv_filters=[32, 32, 64], input_conv_kernel_sizes=[3, 3, 3])(L.Rescaling(1 / 255)(x))), (64, 64, 3)), BYTES, trains=True)
form("hub, classifier of a size", lambda: keras_hub.models.ResNetImageClassifier(backbone=backbone((48, 48, 3)), num_classes=6), UNIT, kinds=[".keras", ""], x=(48, 48), trains=True)
form("hub, classifier whose converter has a size", lambda: keras_hub.models.ResNetImageClassifier(backbone=backbone((None, None, 3)), preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(image_converter=keras_hub.layers.ResNetImageConverter(image_size=(40, 40), scale=1 / 255)), num_classes=6), UNIT, kinds=[".keras", ""], x=(40, 40), trains=True)
form("hub, --input-size", lambda: keras_hub.models.ResNetImageClassifier(backbone=backbone((None, None, 3)), num_classes=6), UNIT, kinds=[".keras", ""], x=(56, 56), options=["--input-size", 56])


# Keras 2, as TensorFlow had it up to 2.15.
K = tf_keras.layers
two = lambda build, shape=(32, 32, 3): functional(build, shape, tf_keras)
form("keras 2, resnet", lambda: two(lambda x: head(trunk(x, K), K, activation="softmax")), UNIT, trains=True)
form("keras 2, augmentation and rescaling", lambda: two(lambda x: head(trunk(K.Rescaling(1 / 255)(tf_keras.Sequential([K.RandomFlip(), K.RandomRotation(0.1)])(x)), K), K)), BYTES, trains=True)
form("keras 2, preprocess_input, Caffe's", lambda: two(lambda x: head(trunk(tf_keras.applications.resnet.preprocess_input(x), K), K)), BYTES, kinds=[".h5"])
form("keras 2, preprocess_input, -1..1", lambda: two(lambda x: head(trunk(tf_keras.applications.resnet_v2.preprocess_input(x), K), K)), BYTES, trains=True)
form("keras 2, sum as an operator", lambda: two(lambda x: head(K.ReLU()(conv(x, 6, lib=K) + conv(x, 6, lib=K)), K)), UNIT)
form("keras 2, sequential", lambda: tf_keras.Sequential([K.Conv2D(8, 3, activation="relu", input_shape=(28, 28, 3)), K.MaxPooling2D(), K.Flatten(), K.Dense(5, activation="softmax")]), UNIT)
form("keras 2, nested base", lambda: keras2_base(), UNIT)
form("keras 2, ResNet50", lambda: tf_keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=6), BYTES, kinds=[".keras", ".h5", "_weights.h5"], prepare="resnet")
form("keras 2, ResNet50V2", lambda: tf_keras.applications.ResNet50V2(weights=None, input_shape=(64, 64, 3), classes=6), BYTES, kinds=[".keras", ".h5", "_weights.h5"], prepare="resnet_v2")
form("keras 2, ResNet50 in a Sequential", lambda: tf_keras.Sequential([tf_keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3), pooling="avg"), K.Dense(6)]), BYTES, prepare="resnet")


def keras2_base():
    base = two(lambda x: trunk(x, K))
    base.trainable = False
    return two(lambda x: head(base(x, training=False), K))


# What is refused names the layer and says what to do.
class Doubled(L.Layer):
    def call(self, x):
        return 2 * x


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.out = L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(5)

    def call(self, x):
        return self.out(self.pool(self.conv(x)))


def own():
    model = Own()
    model(np.zeros((1, 16, 16, 3)))
    return model


form("dilation", lambda: functional(lambda x: head(L.Conv2D(8, 3, dilation_rate=9)(x))), UNIT, refused="dilated by")
form("concatenation", lambda: functional(lambda x: head(L.Concatenate()([conv(x, 4), conv(x, 4)]))), UNIT, refused="(Concatenate)")
form("leaky ReLU", lambda: functional(lambda x: head(L.LeakyReLU()(conv(x, 4)))), UNIT, refused="(LeakyReLU)")
form("sigmoid at the end", lambda: functional(lambda x: head(trunk(x), activation="sigmoid")), UNIT, refused="ends in sigmoid")
form("own layer", lambda: before(Doubled()), UNIT, refused='model.export("model.onnx"')
form("lambda", lambda: before(L.Lambda(lambda x: x / 255)), UNIT, refused='model.export("model.onnx"')
form("own model", own, UNIT, kinds=[".keras"], refused='model.export("model.onnx"')
form("two inputs", lambda: two_inputs(), UNIT, refused="2 inputs")
form("DenseNet121", application("DenseNet121"), UNIT, kinds=[".keras"], refused="(Concatenate)")
form("weights alone", lambda: before(), UNIT, kinds=[".weights.h5"], refused="save the whole model")
form("weights without a head", application("ResNet50", include_top=False), UNIT, kinds=[".weights.h5"], refused="without a head")
form("quantized to int8", lambda: quantized(), UNIT, kinds=[".keras"], refused="quantiz")
form("center crop of larger pictures", lambda: functional(lambda x: head(trunk(L.CenterCrop(32, 32)(x))), (40, 40, 3)), UNIT, refused="an input of 32×32")
form("resizing of a map", lambda: functional(lambda x: head(L.Resizing(20, 20)(conv(x, 4)))), UNIT, refused="no picture")
form("product of maps", lambda: functional(lambda x: head(L.Multiply()([conv(x, 4), conv(x, 4)]))), UNIT, refused="`multiply")
form("one channel", lambda: functional(lambda x: head(trunk(L.Conv2D(3, 1)(x[..., 0:1])))), UNIT, refused="channels in reverse")
form("channels first", lambda: functional(lambda x: head(L.Conv2D(4, 3, data_format="channels_first")(x)), (3, 32, 32)), UNIT, refused="channels last")


def two_inputs():
    a, b = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    return keras.Model([a, b], head(L.Add()([conv(a, 4), conv(b, 4)])))


def quantized():
    model = functional(lambda x: head(trunk(x)))
    model.quantize("int8")
    return model


def save(model, file):
    if isinstance(model, keras_hub.models.ImageClassifier) and not file.suffix:
        model.save_to_preset(str(file))
    elif "weights" in file.name:
        model.save_weights(str(file))
    else:
        model.save(str(file))


def compare(want, have, tolerance):
    want, have = log_softmax(want), log_softmax(have)
    error = np.abs(have - want).max() / np.abs(want).max()
    return error <= tolerance, f"{error:.1e}"


def check(name, build, ends, kinds, known, folder):
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = build()
    if "refused" not in known:
        randomize_keras(getattr(model, "layers", []), random)
    shape = [side or fixed for side, fixed in zip(model.input_shape[1:3], known.get("x", (0, 0)))] if "refused" not in known else [1, 1]
    pixels = np.arange(2 * shape[0] * shape[1] * 3).reshape(2, *shape, 3)
    x = ((pixels * 2654435761 >> 7) % 256).astype(np.float32)
    if ends == UNIT:
        x = x / 127.5 - 1
    for kind in kinds:
        file = folder / f"model{kind}"
        edge = folder / "model.edge"
        save(model, file)
        # A file of weights does not say the size.
        options = ["--input-size", shape[0]] if "weights" in kind else known.get("options", [])
        message = convert(file, edge, "--quantize", "none", *options)
        if "refused" in known:
            is_right = known["refused"] in message and "panicked" not in message
            yield kind, "refused" if is_right else "WRONG", message.splitlines()[0][-110:]
            continue
        if message:
            yield kind, "WRONG", message[:300]
            continue
        prepare = known.get("prepare")
        fed = x
        if prepare:
            prepare = getattr(applications, prepare).preprocess_input
            fed = prepare(x.copy())
        out = np.concatenate([np.asarray(model(keras.ops.convert_to_tensor(p[None]), training=False), np.float32) for p in fed])
        if known.get("softmax") or not is_logits(model):
            out = np.log(out)
        tolerance = known.get("tolerance", 1e-3)
        # A network of blue, green and red takes red, green and blue here.
        turned = prepare and "v2" not in known["prepare"]
        is_right, error = compare(out, tensor_logits(edge, fed[..., ::-1] if turned else fed), tolerance)
        if prepare:
            Image.fromarray(x[0].astype(np.uint8)).save(folder / "x.png")
            also, other = compare(out[:1], picture_logits(edge, folder / "x.png"), tolerance)
            is_right, error = is_right and also, f"{error}, as a picture {other}"
        if known.get("trains") and is_right:
            # The checkpoint has what rescales pictures in its preprocessing.
            checkpoint, again = folder / "model.mpk", folder / "again.edge"
            message = convert(file, checkpoint, *options) or convert(checkpoint, again, "--quantize", "none")
            if message:
                is_right, error = False, message[:300]
            elif ends == BYTES:
                Image.fromarray(x[0].astype(np.uint8)).save(folder / "x.png")
                is_right, other = compare(out[:1], picture_logits(again, folder / "x.png"), tolerance)
                error += f", as a checkpoint {other}"
        yield kind, "right" if is_right else "WRONG", error


def is_logits(model):
    if isinstance(model, keras_hub.models.ImageClassifier):
        return True
    last = model.layers[-1]
    while hasattr(last, "layers"):
        last = last.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    return activation != "softmax" and type(last).__name__ != "Softmax"


counts = {"right": 0, "refused": 0, "WRONG": 0}
for name, build, ends, kinds, known in forms:
    if sys.argv[1:] and not any(part in name for part in sys.argv[1:]):
        continue
    with tempfile.TemporaryDirectory() as folder:
        try:
            for kind, verdict, detail in check(name, build, ends, kinds, known, Path(folder)):
                counts[verdict] += 1
                print(f"{verdict:8} {name}{kind}: {detail}", flush=True)
        except Exception as error:
            counts["WRONG"] += 1
            print(f"WRONG    {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
sys.exit(counts["WRONG"] > 0)
