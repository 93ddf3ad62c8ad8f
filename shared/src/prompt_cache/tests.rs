#![allow(clippy::unwrap_used)] // a test that cannot go on should stop there

use super::*;

use console::cli::FloatType;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::hostile::{Change, assert_told, changed, changes, search};
use crate::testing::fixtures;

fn identity() -> Identity {
    Identity {
        model: digest("a model"),
        template: digest("a template"),
        stored: "all".to_owned(),
    }
}

/// Two layers, two heads, four numbers a head.
fn layout() -> Layout {
    Layout {
        layers: 2,
        kv_heads: 2,
        head_dim: 4,
        positions: 5,
        types: vec![Dtype::F32],
    }
}

fn cache() -> PromptCache {
    let values = |from: i32| {
        let layer = Array::from_iter(from..from + 24, &[1, 2, 3, 4]);
        layer.as_type::<f32>().unwrap()
    };
    PromptCache {
        ids: vec![7, 8, 9],
        layers: vec![[values(0), values(24)], [values(48), values(72)]],
    }
}

fn reason(bytes: &[u8], identity: &Identity) -> String {
    let refused = from_bytes(&mut bytes.to_vec(), identity, &layout());
    refused.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn what_was_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.safetensors");
    save(&path, &identity(), &cache()).unwrap();
    let loaded = load(&path, &identity(), &layout()).unwrap();
    assert_eq!(loaded.ids, cache().ids);
    for (loaded, saved) in loaded
        .layers
        .iter()
        .flatten()
        .zip(cache().layers.iter().flatten())
    {
        assert_eq!(loaded.shape(), saved.shape());
        assert_eq!(
            loaded.try_as_slice::<f32>().unwrap(),
            saved.contiguous().unwrap().try_as_slice::<f32>().unwrap()
        );
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary file is left");
}

#[test]
fn a_changed_bit_anywhere_is_refused() {
    let whole = to_bytes(&identity(), &cache()).unwrap();
    for index in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[index] ^= 1 << (index % 8);
        let refused = from_bytes(&mut damaged, &identity(), &layout());
        assert!(refused.is_err(), "byte {index} of {}", whole.len());
    }
}

#[test]
fn a_file_that_is_cut_short_or_too_long_is_refused() {
    let whole = to_bytes(&identity(), &cache()).unwrap();
    for length in 0..whole.len() {
        assert!(from_bytes(&mut whole[..length].to_vec(), &identity(), &layout()).is_err());
    }
    let mut longer = whole;
    longer.push(0);
    assert!(from_bytes(&mut longer, &identity(), &layout()).is_err());
}

#[test]
fn more_positions_than_the_model_has_are_refused_before_the_file_is_read() {
    let of = |positions: i32| {
        let kv = || Array::zeros::<f32>(&[1, 2, positions, 4]).unwrap();
        let ids = vec![7; positions as usize];
        let layers = vec![[kv(), kv()], [kv(), kv()]];
        to_bytes(&identity(), &PromptCache { ids, layers }).unwrap()
    };
    check_header(&of(5), &identity(), &layout()).unwrap();
    let reason = reason(&of(6), &identity());
    assert_eq!(
        reason,
        "it holds 6 positions, this model has 5: save it again"
    );
}

#[test]
fn a_sealed_file_of_other_arrays_is_refused() {
    let kv = |shape: &[i32]| Array::zeros::<f32>(shape).unwrap();
    let good = || [kv(&[1, 2, 3, 4]), kv(&[1, 2, 3, 4])];
    let integers = || kv(&[1, 2, 3, 4]).as_type::<i32>().unwrap();
    let half = || kv(&[1, 2, 3, 4]).as_dtype(mlx_rs::Dtype::Float16).unwrap();
    let cases = [
        vec![good()],
        vec![good(), good(), good()],
        vec![good(), [kv(&[1, 2, 3, 4]), kv(&[12])]],
        vec![good(), [kv(&[1, 2, 3, 4]), kv(&[1, 2, 12])]],
        vec![good(), [kv(&[1, 2, 3, 4]), kv(&[1, 2, 3, 4, 1])]],
        vec![good(), [kv(&[2, 2, 3, 4]), kv(&[2, 2, 3, 4])]],
        vec![good(), [kv(&[1, 1, 3, 4]), kv(&[1, 1, 3, 4])]],
        vec![good(), [kv(&[1, 2, 3, 8]), kv(&[1, 2, 3, 8])]],
        vec![good(), [kv(&[1, 2, 3, 4]), kv(&[1, 2, 2, 4])]],
        vec![good(), [kv(&[1, 2, 4, 4]), kv(&[1, 2, 4, 4])]],
        vec![[integers(), integers()], good()],
        vec![[half(), half()], good()],
    ];
    for layers in cases {
        let ids = vec![7, 8, 9];
        let bytes = to_bytes(&identity(), &PromptCache { ids, layers }).unwrap();
        let reason = reason(&bytes, &identity());
        assert!(reason.contains("this model"), "{reason}");
    }
}

#[test]
fn what_is_no_file_of_its_size_answers_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.safetensors");
    let refused = |path: &Path| format!("{:#}", load(path, &identity(), &layout()).unwrap_err());
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(
        refused(&path).contains("no prompt cache"),
        "{}",
        refused(&path)
    );
    assert!(refused(Path::new("/dev/zero")).contains("a device or a pipe"));
    std::fs::write(&path, "").unwrap();
    refused(&path);
}

#[test]
fn the_reason_of_a_refusal_is_told() {
    let whole = to_bytes(&identity(), &cache()).unwrap();
    let other = |change: &dyn Fn(&mut Identity)| {
        let mut other = identity();
        change(&mut other);
        reason(&whole, &other)
    };
    let mut ids = whole.clone();
    let last = ids.len() - 1;
    ids[last] ^= 1;
    let plain = safetensors::serialize(
        [(
            "ids",
            TensorView::new(Dtype::U32, vec![1], &[0; 4]).unwrap(),
        )],
        None,
    );
    let version = b"\"version\":\"2";
    let mut places = whole.windows(version.len());
    let at = places.position(|text| text == version).unwrap() + version.len() - 1;
    let mut newer = whole.clone();
    newer[at] = b'3';
    let reasons = [
        other(&|identity| identity.model = digest("another")),
        other(&|identity| identity.template = String::new()),
        other(&|identity| identity.stored = "the first 4 and the last 60".to_owned()),
        reason(&ids, &identity()),
        reason(&plain.unwrap(), &identity()),
        reason(&newer, &identity()),
        reason(&whole[..20], &identity()),
        reason(b"{}", &identity()),
    ];
    insta::assert_snapshot!(reasons.join("\n"));
}

#[test]
fn a_prompt_has_to_begin_with_the_tokens_and_go_on() {
    let cache = cache();
    assert!(cache.check_prefix(&[7, 8, 9, 1]).is_ok());
    let refused = |prompt: &[u32]| cache.check_prefix(prompt).unwrap_err().to_string();
    insta::assert_snapshot!([refused(&[7, 8, 9]), refused(&[7, 1, 9, 1]), refused(&[])].join("\n"));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = save(Path::new("no/such/place/a"), &identity(), &cache()).unwrap_err();
    assert!(format!("{error:#}").contains("there is no directory no/such/place"));
}

#[test]
fn one_changed_weight_is_another_model() {
    let directory = tempfile::tempdir().unwrap();
    let from = fixtures::directory().join("llama");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(name), directory.path().join(name)).unwrap();
    }
    let fingerprint = || {
        let files = ModelFiles::Directory(directory.path().to_owned());
        let mut checkpoint = Checkpoint::open("copy", files).unwrap();
        let own = fingerprint(&checkpoint).unwrap();
        checkpoint.dtype = Some(FloatType::Bf16);
        (own, fingerprint(&checkpoint).unwrap())
    };
    let (before, in_bf16) = fingerprint();
    let weights = directory.path().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_ne!(before, fingerprint().0);
    assert_ne!(before, in_bf16);
}

/// A saved cache with another header and other bytes, sealed again if there is still a place for it.
fn resealed(header_changes: &[Change], bytes: &[(Index, u8)], end: Option<Index>) -> Vec<u8> {
    let whole = to_bytes(&identity(), &cache()).unwrap();
    let (header, data) = whole[8..].split_at(usize::from(whole[0]) + 256 * usize::from(whole[1]));
    let header: Value = serde_json::from_slice(header).unwrap();
    let header = changed(header, header_changes, &[]).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let mut file = [&length[..], header.as_bytes(), data].concat();
    for (place, byte) in bytes {
        let place = place.index(file.len());
        file[place] = *byte;
    }
    file.truncate(end.map_or(file.len(), |end| end.index(file.len() + 1)));
    // Without a place for a checksum it is refused anyway.
    let _ = seal(&mut file);
    file
}

#[test]
fn hostile_prompt_caches_are_this_models_or_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.safetensors");
    let bytes = vec(any::<(Index, u8)>(), 0..4);
    let header = prop_oneof![changes(), Just(Vec::new())];
    let end = prop::option::weighted(0.1, any::<Index>());
    search(500, &(header, bytes, end), |(header, bytes, end)| {
        std::fs::write(&path, resealed(&header, &bytes, end)).unwrap();
        match load(&path, &identity(), &layout()) {
            Ok(loaded) => {
                for kv in loaded.layers.iter().flatten() {
                    assert_eq!(kv.dtype(), mlx_rs::Dtype::Float32);
                    let [1, 2, stored, 4] = *kv.shape() else {
                        panic!("{:?}", kv.shape())
                    };
                    assert!((1..=loaded.ids.len() as i32).contains(&stored));
                    kv.eval().unwrap();
                }
                assert_eq!(loaded.layers.len(), 2);
            }
            Err(error) => assert_told(&error),
        }
    });
}
