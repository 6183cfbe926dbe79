//! A secret as a configuration gives it: itself, or a file that holds nothing else. Knows nothing of what it opens.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::error::{Error, Result};

/// No password and no token is longer; a file that is, is another one than was meant.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// `what` is as in "cannot read the source's password"; line breaks at the file's end do not count.
pub fn load(
    what: &str,
    given: Option<&SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>> {
    match (given, file) {
        (Some(given), _) => Ok(Some(given.clone())),
        (None, Some(file)) => read(what, file).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(what: &str, path: &Path) -> Result<SecretString> {
    let cannot = || {
        Error::input(format!("cannot read {what} in {}", path.display()))
            .with_advice("it is looked for in a file that holds nothing but it")
    };
    // As large as it can become: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize + 1));
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|cause| cannot().caused_by(cause))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(cannot().caused_by("it has more than 64 KiB"));
    }
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let error = read("the password", Path::new("/dev/zero")).expect_err("refused");
        assert!(error.report().contains("64 KiB"), "{}", error.report());
    }

    #[test]
    fn what_is_given_wins_over_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("secret");
        std::fs::write(&file, "sesame\r\n").expect("writes");
        let given = SecretString::from("other");
        let loaded = |given| load("the password", given, Some(&file)).expect("reads");
        assert_eq!(loaded(None).expect("there is one").expose_secret(), "sesame");
        assert_eq!(loaded(Some(&given)).expect("there is one").expose_secret(), "other");
        assert!(load("the password", None, None).expect("nothing to read").is_none());
    }
}
