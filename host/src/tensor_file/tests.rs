//! What is written is read back, and what does not fit is told.

use super::*;
use std::fs;

fn written<T: Element>(rows: usize, cols: usize, values: &[T]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    write_matrix(&path, "w", rows, cols, values).unwrap();
    (folder, path)
}

#[test]
fn every_dtype_comes_back_as_it_was_written() {
    let values = [0.0, -0.0, 1.5, f32::NAN, f32::INFINITY, -65504.0];
    fn check<T: Element>(values: [f32; 6]) {
        let (_folder, path) = written(2, 3, &values.map(T::from_f32));
        let matrix = TensorFile::open(&path).unwrap().matrix("w").unwrap();
        assert_eq!((matrix.rows, matrix.cols, matrix.dtype), (2, 3, T::DTYPE));
        let expected = values.map(|value| T::from_f32(value).to_f32().to_bits());
        assert_eq!(
            matrix.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            expected
        );
    }
    check::<f32>(values);
    check::<f16>(values);
    check::<bf16>(values);
}

#[test]
fn names_are_sorted_whatever_the_files_order_is() {
    let view = |dtype, bytes| TensorView::new(dtype, vec![1], bytes).unwrap();
    // The file has wide elements first.
    let tensors = [
        ("a", view(Dtype::U8, &[1])),
        ("c", view(Dtype::F32, &[1, 2, 3, 4])),
        ("b", view(Dtype::F16, &[1, 2])),
    ];
    let bytes = serialize(tensors, None).unwrap();
    let file = TensorFile::from_bytes("w.safetensors", bytes).unwrap();
    assert_eq!(file.names().0, ["a", "b", "c"]);
}

#[test]
fn a_file_cut_anywhere_is_malformed() {
    let (_folder, path) = written(2, 3, &[1.0_f32; 6]);
    let bytes = fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        let error = TensorFile::open(&path).unwrap_err();
        assert!(matches!(error, TensorFileError::Malformed { len: l, .. } if l == len));
        assert!(
            error.to_string().contains(&format!("({len} bytes)")),
            "{error}"
        );
    }
    fs::write(&path, [bytes.as_slice(), &[0]].concat()).unwrap();
    assert!(matches!(
        TensorFile::open(&path),
        Err(TensorFileError::Malformed { .. })
    ));
}

#[test]
fn what_is_not_in_the_file_is_named() {
    let (folder, path) = written(2, 3, &[1.0_f32; 6]);
    let file = TensorFile::open(&path).unwrap();
    let error = file.matrix("v").unwrap_err().to_string();
    assert!(error.ends_with("has no tensor \"v\"; it has w"), "{error}");
    let error = file.vector("w").unwrap_err();
    assert!(
        matches!(&error, TensorFileError::WrongRank { shape, expected: 1, .. } if *shape == [2, 3]),
        "{error}"
    );
    let missing = TensorFile::open(folder.path().join("none")).unwrap_err();
    assert!(
        matches!(missing, TensorFileError::Io { action: "read", .. }),
        "{missing}"
    );

    let integers = TensorView::new(Dtype::I8, vec![1, 2], &[1, 2]).unwrap();
    fs::write(&path, serialize([("q", integers)], None).unwrap()).unwrap();
    let error = TensorFile::open(&path).unwrap().matrix("q").unwrap_err();
    assert!(
        matches!(
            &error,
            TensorFileError::WrongDtype {
                dtype: Dtype::I8,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn packed_weights_and_their_scale_come_out_of_a_file() {
    // [12, 5] by transformers' rule, stated the other way round: the weight that a bit pair is of.
    let (n, k) = (12, 5);
    let weights: Vec<i8> = (0..n * k).map(|i| (i * i % 11 % 3) as i8 - 1).collect();
    let mut packed = vec![0_u8; n / 4 * k];
    for (row, weights) in weights.chunks(k).enumerate() {
        for (column, weight) in weights.iter().enumerate() {
            packed[row % (n / 4) * k + column] |= ((weight + 1) as u8) << (row / (n / 4) * 2);
        }
    }
    let scale = bf16::from_f32(1.25).to_le_bytes();
    let mut damaged = packed.clone();
    damaged[7] |= 0b11_00;
    let tensors = |bytes| TensorView::new(Dtype::U8, vec![n / 4, k], bytes).unwrap();
    let file = serialize(
        [
            ("w", tensors(&packed)),
            ("damaged", tensors(&damaged)),
            (
                "scale",
                TensorView::new(Dtype::BF16, vec![1], &scale).unwrap(),
            ),
            (
                "empty",
                TensorView::new(Dtype::U8, vec![0, 5], &[]).unwrap(),
            ),
        ],
        None,
    )
    .unwrap();
    let file = TensorFile::from_bytes("model", file).unwrap();
    for layout in Layout::ALL {
        let read = file.packed_weights("w", layout).unwrap();
        assert_eq!((read.n(), read.k(), read.layout()), (n, k, layout));
        assert_eq!(read.unpack(), weights);
    }
    assert_eq!(file.scalar("scale").unwrap(), 1.25);
    assert_eq!(file.dtype("scale").unwrap(), Dtype::BF16);

    let packed = |name| chain(&file.packed_weights(name, Layout::Tiled).unwrap_err());
    // Byte 7 is row 1, column 2; its second pair is the second quarter's, three rows on.
    assert!(packed("damaged").contains("code 3 at row 4, column 2"));
    assert!(packed("scale").contains("is BF16: U8 is needed"));
    assert!(packed("empty").contains("at least 1"));
    assert!(packed("none").contains("damaged, empty, scale, w"));
    let error = file.scalar("w").unwrap_err().to_string();
    assert!(error.contains("is U8: F32, F16 or BF16"), "{error}");
    let (_folder, path) = written(2, 3, &[1.0_f32; 6]);
    let error = TensorFile::open(&path).unwrap().scalar("w").unwrap_err();
    assert!(error.to_string().contains("shape [2, 3]"), "{error}");
}

#[test]
fn a_wrong_length_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let error = write_matrix(&path, "w", 2, 3, &[1.0_f32; 5]).unwrap_err();
    assert!(
        matches!(error, TensorFileError::WrongLength { actual: 5, .. }),
        "{error}"
    );
    assert!(!path.exists());
    let unwritable = write_matrix(folder.path(), "w", 1, 1, &[1.0_f32]).unwrap_err();
    assert!(
        matches!(
            unwritable,
            TensorFileError::Io {
                action: "write",
                ..
            }
        ),
        "{unwritable}"
    );
}

#[test]
fn the_name_of_the_metadata_is_no_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let error = write_matrix(&path, "__metadata__", 1, 1, &[1.0_f32]).unwrap_err();
    assert!(error.to_string().contains("\"__metadata__\""), "{error}");
    assert!(!path.exists());
    write_matrix(&path, "metadata", 1, 1, &[1.0_f32]).unwrap();
    assert_eq!(TensorFile::open(&path).unwrap().names().0, ["metadata"]);
}

/// An error with its causes, each of which is told once.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let messages: Vec<String> = causes.map(ToString::to_string).collect();
    for (index, message) in messages.iter().enumerate() {
        let inner = &messages[index + 1..];
        assert!(
            !inner.iter().any(|inner| message.contains(inner.as_str())),
            "{messages:?}"
        );
    }
    messages.join(": ")
}

/// A file of one f32 that begins with this header.
fn of_header(header: &str) -> Result<TensorFile, TensorFileError> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 4]);
    TensorFile::from_bytes("w", bytes)
}

/// A file is somebody else's, and a message may go to a terminal.
#[test]
fn what_is_wrong_with_a_header_is_one_line_of_text() {
    for header in [
        r#"{"w":{"dtype":"\n\u001b[31mF32","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"\n\u001b[31mw":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
    ] {
        let error = chain(&of_header(header).unwrap_err());
        assert!(!error.chars().any(char::is_control), "{error:?}");
        assert!(error.contains(r"\n\u{1b}[31m"), "{error}");
    }
}

#[test]
fn a_tensor_is_there_once() {
    let of = |names: [&str; 2], dtypes: [&str; 2]| {
        let tensor = |index: usize| {
            let (name, dtype) = (names[index], dtypes[index]);
            // The f16 has no elements.
            let shape = if dtype == "F32" { 1 } else { 0 };
            format!(
                r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[0,{}]}}"#,
                4 * shape
            )
        };
        of_header(&format!("{{{},{}}}", tensor(0), tensor(1)))
    };
    let error = chain(&of(["w", "w"], ["F16", "F32"]).unwrap_err());
    assert!(error.contains("there are two of `w`"), "{error}");
    // The same name in other letters.
    assert!(of(["w", r"\u0077"], ["F16", "F32"]).is_err());
    assert_eq!(
        of(["v", "w"], ["F16", "F32"]).unwrap().names().0,
        ["v", "w"]
    );
}

#[test]
fn long_lists_of_names_end_early() {
    let names = |n: usize| TensorNames((0..n).map(|i| i.to_string()).collect()).to_string();
    assert_eq!(names(0), "none");
    assert_eq!(names(3), "0, 1, 2");
    let odd = TensorNames(vec!["a\n\u{1b}[31m".to_owned(), "ü".to_owned()]);
    assert_eq!(odd.to_string(), "a\\n\\u{1b}[31m, ü");
    assert!(names(21).ends_with("18, 19 and 1 more"));
}
