//! Published counts of parameters and products, and configs of files.

use super::*;
use crate::architecture::{Architecture, Family};
use crate::evaluate::evaluate;
use crate::graph::NodeOp;
use crate::init::random_checkpoint;
use artifact::Shape;

fn mobilenet(name: &str) -> MobileNetConfig {
    match Architecture::named(name, 10).unwrap().family {
        Family::MobileNet(config) => config,
        Family::ResNet(_) => panic!("{name} is a ResNet"),
    }
}

/// Parameters that are trained, and the statistics of batch-norms.
fn parameters(name: &str) -> [usize; 2] {
    let blueprint = Architecture::named(name, 1000).unwrap().blueprint();
    let count = |is_statistic: bool| {
        let tensors = blueprint.tensors().filter(|(name, _)| {
            (name.ends_with(".mean") || name.ends_with(".variance")) == is_statistic
        });
        tensors.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    };
    [count(false), count(true)]
}

/// As counted by Keras 3.15 (its EfficientNets normalize by seven more numbers; their B1 to B5 are the same),
/// torchvision 0.29 and timm 1.0.31.
#[test]
fn networks_have_the_published_parameters() {
    for (name, trained, statistics) in [
        ("mobilenet_v1_025", 470_072, 5_472),
        ("mobilenet_v1_050", 1_331_592, 10_944),
        ("mobilenet_v1_075", 2_585_560, 16_416),
        ("mobilenet_v1", 4_231_976, 21_888),
        ("mobilenet_v1_100", 4_231_976, 21_888),
        ("mobilenet_v2_035", 1_677_128, 14_080),
        ("mobilenet_v2_050", 1_968_680, 18_544),
        ("mobilenet_v2_075", 2_636_424, 26_640),
        ("mobilenet_v2", 3_504_872, 34_112),
        ("mobilenet_v2_130", 5_386_792, 44_256),
        ("mobilenet_v2_140", 6_108_776, 47_936),
        ("mobilenet_v3_small_050", 1_593_224, 6_496),
        ("mobilenet_v3_small_075", 2_041_872, 9_680),
        ("mobilenet_v3_small", 2_542_856, 12_112),
        ("mobilenet_v3_small_100_imagenet", 2_542_856, 12_112),
        ("mobilenet_v3_large_075", 3_993_528, 19_088),
        ("mobilenet_v3_large", 5_483_032, 24_400),
        ("mobilenet_v3_large_125", 8_255_784, 30_976),
        ("efficientnet_b0", 5_288_548, 42_016),
        ("efficientnet_b1", 7_794_184, 62_048),
        ("efficientnet_b1_ra4_e3600_r240_imagenet", 7_794_184, 62_048),
        ("efficientnet_b2", 9_109_994, 67_568),
        ("efficientnet_b3", 12_233_232, 87_296),
        ("efficientnet_b4", 19_341_616, 125_200),
        ("efficientnet_b5", 30_389_784, 172_736),
        ("efficientnet_b6", 43_040_704, 224_432),
        ("efficientnet_b7", 66_347_960, 310_720),
        ("efficientnet_lite0", 4_652_008, 42_016),
        ("efficientnet_lite0_ra_imagenet", 4_652_008, 42_016),
        ("efficientnet_lite1", 5_416_680, 53_664),
        ("efficientnet_lite2", 6_092_072, 58_096),
        ("efficientnet_lite3", 8_197_096, 76_672),
        ("efficientnet_lite4", 13_006_568, 112_368),
    ] {
        assert_eq!(parameters(name), [trained, statistics], "{name}");
    }
}

/// Products of convolutions and dense layers in torchvision's and timm's networks, counted by hooks.
#[test]
fn networks_have_the_published_products() {
    for (name, products) in [
        ("mobilenet_v1", 568_740_352),
        ("mobilenet_v2_035", 59_285_808),
        ("mobilenet_v2", 300_774_272),
        ("mobilenet_v2_140", 582_195_824),
        ("mobilenet_v3_small", 56_510_400),
        ("mobilenet_v3_large_075", 154_560_624),
        ("mobilenet_v3_large", 216_589_760),
        ("efficientnet_b0", 385_814_752),
        ("efficientnet_b1", 569_651_680),
        ("efficientnet_lite0", 385_187_552),
        ("efficientnet_lite2", 576_509_424),
    ] {
        let blueprint = Architecture::named(name, 1000).unwrap().blueprint();
        let input = Shape::new(224, 224, 3);
        let graph = blueprint.graph(input, |_, numbers| Ok(vec![0.0; numbers])).unwrap();
        let convs = graph.nodes.iter().filter(|node| matches!(node.op, NodeOp::Conv2d(_)));
        assert_eq!(convs.map(|node| node.macs()).sum::<u64>(), products, "{name}");
    }
}

#[test]
fn names_say_widths_and_sizes() {
    for name in
        ["mobilenet_v2_000", "mobilenet_v2_50", "mobilenet_v2_", "mobilenet_v4", "mobilenet_v2_+50"]
    {
        assert_eq!(Architecture::by_name(name, 10), None, "{name}");
    }
    assert_eq!(mobilenet("mobilenet_v1_030").stem_filters, 9);
    for (name, size, classes) in [
        ("mobilenet_v1_025", 224, 1000),
        ("efficientnet_b3", 300, 1000),
        ("efficientnet_lite4", 300, 1000),
        ("efficientnet_b2_ra_imagenet", 260, 1000),
    ] {
        let found = Architecture::named(name, 10).unwrap();
        assert_eq!((found.native_size(), found.native_classes()), (size, classes), "{name}");
    }
    let tiny = MobileNetConfig { stem_stride: 1, ..mobilenet("mobilenet_v2_035") };
    let tiny = Architecture::new("tiny", 10, Family::MobileNet(tiny));
    assert_eq!((tiny.native_size(), tiny.native_classes()), (32, 10));
}

#[test]
fn files_say_no_more_than_the_network_is() {
    let written =
        |name: &str| serde_json::to_value(Architecture::named(name, 10).unwrap()).unwrap();
    let v1 = written("mobilenet_v1_025");
    assert_eq!(
        (&v1["family"], &v1["block_type"], &v1["activation"], &v1["blocks"][1]),
        (
            &"mobilenet".into(),
            &"separable".into(),
            &"relu6".into(),
            &serde_json::json!({ "filter": 3, "stride": 2, "filters": 32, "activation": "relu6" })
        )
    );
    for left_out in ["stem_stride", "last_filters", "hidden_features", "gate_activations"] {
        assert!(v1.get(left_out).is_none(), "{left_out}");
    }
    let v3 = written("mobilenet_v3_small");
    assert_eq!(v3["gate_activations"], serde_json::json!(["relu", "hard_sigmoid"]));
    let block = serde_json::json!({
        "expanded": 96, "filter": 5, "stride": 2, "squeezed": 24, "filters": 40,
        "activation": "hard_swish"
    });
    assert_eq!(v3["blocks"][3], block);
    for name in Architecture::names() {
        let config = Architecture::named(name, 10).unwrap();
        assert_eq!(config.check(), Ok(()), "{name}");
        let read = serde_json::from_value(written(name)).unwrap();
        assert_eq!(config, read, "{name}");
        let packed = rmp_serde::to_vec_named(&config).unwrap();
        assert_eq!(rmp_serde::from_slice::<Architecture>(&packed).unwrap(), config, "{name}");
    }
}

#[test]
fn forged_configs_are_refused() {
    type Forge = fn(&mut MobileNetConfig);
    let forged: [(&str, Forge); 14] = [
        ("0 blocks", |c| c.blocks.clear()),
        ("257 blocks", |c| c.blocks = vec![c.blocks[0].clone(); 257]),
        ("width 0", |c| c.stem_filters = 0),
        ("width 8193", |c| c.blocks[1].expanded = Some(8193)),
        ("width 0", |c| c.blocks[0].squeezed = Some(0)),
        ("width 18446744073709551615", |c| c.blocks[2].filters = usize::MAX),
        ("width 65536", |c| c.last_filters = Some(1 << 16)),
        ("width 9000", |c| c.hidden_features = Some(9000)),
        ("filter size 4", |c| c.blocks[1].filter = 4),
        ("filter size 33", |c| c.blocks[1].filter = 33),
        ("strides", |c| c.blocks[1].stride = 0),
        ("strides", |c| c.stem_stride = 5),
        ("gates", |c| c.gate_activations = None),
        ("no name", |c| c.activation = Activation::Clamp { low: 0.0, high: 1.0 }),
    ];
    for (what, forge) in forged {
        let mut config = mobilenet("mobilenet_v3_small");
        forge(&mut config);
        let error = config.check().unwrap_err();
        assert!(error.contains(what), "{what}: {error}");
    }
    let mut ungated = mobilenet("mobilenet_v2");
    ungated.gate_activations = Some([Activation::RELU; 2]);
    assert!(ungated.check().unwrap_err().contains("gates"));
    for (field, value) in [("activation", "tanh"), ("block_type", "fused"), ("padding", "none")] {
        let mut written =
            serde_json::to_value(Architecture::named("mobilenet_v2", 10).unwrap()).unwrap();
        written[field] = value.into();
        let error = serde_json::from_value::<Architecture>(written).unwrap_err().to_string();
        assert!(error.contains(value), "{error}");
    }
}

#[test]
fn a_gated_block_has_these_layers() {
    let blueprint = Architecture::named("mobilenet_v3_small", 10).unwrap().blueprint();
    let names: Vec<&str> = blueprint.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names[..4], ["input", "stem_conv", "stem_bn", "stem_act"]);
    let block: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("block4_")).collect();
    assert_eq!(
        block.join(" "),
        "expand_conv expand_bn expand_act depthwise_conv depthwise_bn depthwise_act se_pool \
         se_reduce se_reduce_act se_expand se_expand_act se_gate project_conv project_bn add"
    );
    let tail = "last_conv last_bn last_act pooler hidden hidden_act predictions";
    assert!(names.join(" ").ends_with(tail));
    assert_eq!((blueprint.cuts.len(), blueprint.features()), (12, 1024));
    let stages = blueprint.stages.iter().map(|&stage| names[stage]);
    let expected = ["stem_act", "block0_project_bn", "block2_add", "block7_add", "block10_add"];
    assert_eq!(stages.collect::<Vec<_>>(), expected);
}

/// Whatever the depth, pictures make a difference and no number grows without bounds.
#[test]
fn random_networks_stay_within_bounds() {
    for (name, padding) in [
        ("mobilenet_v1_025", ConvPadding::Same),
        ("mobilenet_v2_035", ConvPadding::Symmetric),
        ("mobilenet_v3_small_050", ConvPadding::Same),
        ("mobilenet_v3_large_035", ConvPadding::Symmetric),
        ("efficientnet_lite0", ConvPadding::Symmetric),
        ("efficientnet_b0", ConvPadding::Same),
    ] {
        let mut config = Architecture::named(name, 16).unwrap();
        if let Family::MobileNet(mobilenet) = &mut config.family {
            mobilenet.padding = padding;
        }
        let graph = random_checkpoint(config, 32, 1).unwrap().graph().unwrap();
        let logits = [1, 2].map(|key| {
            let mut rng = crate::random::Rng::keyed(&[key]);
            let picture: Vec<f32> = (0..32 * 32 * 3).map(|_| rng.normal() as f32).collect();
            evaluate(&graph, &picture)
        });
        let spread = |x: &mut dyn Iterator<Item = f32>| {
            (x.map(|x| f64::from(x).powi(2)).sum::<f64>() / 16.0).sqrt()
        };
        let size = spread(&mut logits[0].iter().copied());
        let apart = spread(&mut logits[0].iter().zip(&logits[1]).map(|(a, b)| a - b));
        println!("{name}: {size} {apart}");
        assert!((0.05..50.0).contains(&size) && apart > 1e-3 * size, "{name}: {size}, {apart}");
    }
}
