//! Making keys: the fleet's authority, and certificates signed by it. The verb and the lab make them here.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use daemun_sync::keys::{self, CertificateInfo, Keys, ORGANIZATION, PemFile, name_of};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// The authorities that are trusted.
pub(crate) const CA: &str = "ca.pem";
/// The key of the first of them, which signs.
pub(crate) const CA_KEY: &str = "ca.key";
/// The key of the one before it, set aside by a rotation.
pub(crate) const CA_KEY_OLD: &str = "ca.old.key";
/// An agent's certificate, below the name of its datacenter.
pub(crate) const CERTIFICATE: &str = "agent.pem";
/// Its key.
pub(crate) const KEY: &str = "agent.key";

/// A day.
pub(crate) const DAY_SECONDS: u64 = 86_400;
/// An authority outlives those who set it up, so its end must not come as a surprise: `keys show` and `keys rotate`.
const AUTHORITY_DAYS: u64 = 3650;
/// A machine whose clock is behind still believes what was made just now.
const SKEW_SECONDS: u64 = 3600;

/// Files in the place of which others come: no reader sees a half of one.
fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let writing = || format!("writing {}", path.display());
    let sibling = path.with_extension("new");
    match fs::remove_file(&sibling) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(writing),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&sibling)
        .with_context(writing)?;
    file.write_all(text.as_bytes()).with_context(writing)?;
    file.sync_all().with_context(writing)?;
    fs::rename(&sibling, path).with_context(writing)
}

/// A file that everyone may read.
fn write_public(path: &Path, text: &str) -> anyhow::Result<()> {
    replace(path, text, 0o644)
}

/// A file that only its owner reads.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    replace(path, text, 0o600)
}

fn create(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))
}

/// Valid from now to an end.
fn set_validity(params: &mut CertificateParams, now_unix_s: u64, end_unix_s: u64) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now_unix_s.saturating_sub(SKEW_SECONDS));
    params.not_after = epoch + Duration::from_secs(end_unix_s);
}

/// A new authority for a fleet: certificate and key, PEM.
fn authority(fleet: &str, now_unix_s: u64) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.distinguished_name.push(DnType::CommonName, fleet);
    set_validity(&mut params, now_unix_s, now_unix_s + AUTHORITY_DAYS * DAY_SECONDS);
    let key = KeyPair::generate().context("making the authority's key")?;
    let certificate = params.self_signed(&key).context("making the authority's certificate")?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// The authority of a fleet, in a directory that has none yet.
///
/// # Errors
/// When there is one: a fleet that lost its authority could not be told from a stranger.
pub(crate) fn init(directory: &Path, fleet: &str, now_unix_s: u64) -> anyhow::Result<()> {
    for file in [CA, CA_KEY] {
        let path = directory.join(file);
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} is already there and stays: `daemun keys rotate` makes a new authority, `--directory` another place",
                path.display()
            );
        }
    }
    create(directory)?;
    let (certificate, key) = authority(fleet, now_unix_s)?;
    write_secret(&directory.join(CA_KEY), &key)?;
    write_public(&directory.join(CA), &certificate)
}

/// A directory with an authority, as far as all verbs need it.
pub(crate) struct Authorities {
    /// Its file, for messages.
    pub(crate) path: PathBuf,
    pub(crate) pem: String,
    /// The one that signs first.
    pub(crate) certificates: Vec<keys::Certificate>,
    pub(crate) infos: Vec<CertificateInfo>,
    pub(crate) fleet: String,
}

impl Authorities {
    /// Reads them.
    ///
    /// # Errors
    /// When they are not there, broken, or not made by `daemun keys`.
    pub(crate) fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(CA);
        let name = path.display().to_string();
        let pem = fs::read_to_string(&path).with_context(|| {
            format!(
                "reading {name}: `daemun keys init --fleet NAME` makes it, `--directory` says where it is"
            )
        })?;
        let certificates = keys::certificates(PemFile { name: &name, bytes: pem.as_bytes() })?;
        let infos = certificates
            .iter()
            .map(|certificate| CertificateInfo::read(certificate).map_err(|error| anyhow!("{name}: {error}")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let fleet = infos[0].fleet().with_context(|| {
            format!("{name}: its first certificate is not an authority that `daemun keys init` made")
        })?;
        let fleet = fleet.to_owned();
        Ok(Self { path, pem, certificates, infos, fleet })
    }
}

/// What was issued.
pub(crate) struct Issued {
    /// Where the certificate and its key are.
    pub(crate) directory: PathBuf,
    pub(crate) keys: Keys,
}

/// Makes the keys of a datacenter's agents; earlier ones are replaced.
///
/// # Errors
/// When there is no authority, or it cannot sign.
pub(crate) fn issue(
    directory: &Path,
    datacenter: &str,
    days: u64,
    now_unix_s: u64,
) -> anyhow::Result<Issued> {
    let authorities = Authorities::read(directory)?;
    let (fleet, ca) = (authorities.fleet.as_str(), &authorities.infos[0]);
    if ca.not_after_unix_s <= now_unix_s {
        bail!(
            "the authority in {} has ended: `daemun keys rotate` makes a new one",
            authorities.path.display()
        );
    }
    let key_path = directory.join(CA_KEY);
    let reading = || {
        format!(
            "reading {}: the authority's key is only where `daemun keys init` was called",
            key_path.display()
        )
    };
    let ca_key = fs::read_to_string(&key_path).with_context(reading)?;
    let ca_key = KeyPair::from_pem(&ca_key)
        .map_err(|_| anyhow!("{}: holds no private key that can sign", key_path.display()))?;
    let issuer =
        Issuer::from_ca_cert_der(&authorities.certificates[0], ca_key).context("reading the authority")?;
    let mut params = CertificateParams::new(vec![name_of(datacenter, fleet)]).context("the name")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.distinguished_name.push(DnType::CommonName, datacenter);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now_unix_s, (now_unix_s + days * DAY_SECONDS).min(ca.not_after_unix_s));
    let key = KeyPair::generate().context("making a key")?;
    let certificate = params.signed_by(&key, &issuer).context("signing the certificate")?.pem();
    let key = key.serialize_pem();
    // What would be refused later is refused now: the key may be that of another authority.
    let pem = |name, text: &'_ str| (name, text.to_owned());
    let files = [pem(CA, &authorities.pem), pem(CERTIFICATE, &certificate), pem(KEY, &key)];
    let [ca, own, own_key] = files.each_ref().map(|(name, text)| PemFile { name, bytes: text.as_bytes() });
    let keys = Keys::parse(datacenter, fleet, ca, own, own_key).with_context(|| {
        format!("{} is not the key of {}", key_path.display(), authorities.path.display())
    })?;
    let directory = directory.join(datacenter);
    create(&directory)?;
    write_secret(&directory.join(KEY), &key)?;
    write_public(&directory.join(CERTIFICATE), &certificate)?;
    Ok(Issued { directory, keys })
}

/// A new authority before the old one, which is trusted until [`finish`].
///
/// # Errors
/// When there is no authority, or two already.
pub(crate) fn rotate(directory: &Path, now_unix_s: u64) -> anyhow::Result<()> {
    let authorities = Authorities::read(directory)?;
    if authorities.certificates.len() > 1 {
        bail!(
            "{} holds {} authorities: a rotation is under way; end it with `daemun keys rotate --finish`",
            authorities.path.display(),
            authorities.certificates.len()
        );
    }
    let key = directory.join(CA_KEY);
    let old_key = fs::read_to_string(&key).with_context(|| format!("reading {}", key.display()))?;
    let (certificate, new_key) = authority(&authorities.fleet, now_unix_s)?;
    // In this order: wherever it breaks off, it can be done again, and no authority is trusted whose key is lost.
    write_secret(&directory.join(CA_KEY_OLD), &old_key)?;
    write_secret(&key, &new_key)?;
    write_public(&authorities.path, &(certificate + &authorities.pem))
}

/// Drops all authorities but the first.
///
/// # Errors
/// When there is but one, or a certificate in the directory is still signed by one of the others.
pub(crate) fn finish(directory: &Path) -> anyhow::Result<()> {
    let authorities = Authorities::read(directory)?;
    if authorities.certificates.len() == 1 {
        bail!("{} holds one authority: there is no rotation to finish", authorities.path.display());
    }
    let behind: Vec<String> = issued(directory)?
        .into_iter()
        .filter(|(_, path)| signer(path, &authorities) != Some(0))
        .map(|(datacenter, _)| datacenter)
        .collect();
    if !behind.is_empty() {
        bail!(
            "{} still have certificates of the old authority, which would be refused: `daemun keys issue` for each, copy \
             them to their machines, then finish",
            behind.join(", ")
        );
    }
    let end = "-----END CERTIFICATE-----";
    let first = authorities.pem.find(end).context("a certificate has an end")?;
    write_public(&authorities.path, &format!("{}{end}\n", &authorities.pem[..first]))
}

/// The datacenters that have certificates below a directory, and the paths of these.
pub(crate) fn issued(directory: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let reading = || format!("reading {}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let path = entry.path().join(CERTIFICATE);
        if path.is_file() {
            found.push((entry.file_name().to_string_lossy().into_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// Which of the authorities has signed the certificate in a file.
pub(crate) fn signer(path: &Path, authorities: &Authorities) -> Option<usize> {
    let bytes = fs::read(path).ok()?;
    let name = path.display().to_string();
    let chain = keys::certificates(PemFile { name: &name, bytes: &bytes }).ok()?;
    keys::signer(&chain, &authorities.certificates)
}
