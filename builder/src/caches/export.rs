//! Writes a cache: the records of a build's steps with their layers and tree hashes, whether they were run, were here, or
//! came from another cache. What the place has already is not written again; the entry that makes the cache count is
//! written last.
//!
//! Layers of base images are not part of a cache: they are where the image is.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cache::mounts::About;
use cache::{DiffId, Digest, Key, Record, Store};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use solver::op::{Mount, Op};
use solver::{Event, Events, Graph, Index as _, InputView, Subject};

use super::document::{BlobEntry, CacheDocument, HashEntry, LayerEntry};
use super::sign::Signer;
use super::spec::{CacheMode, CachePlace, CacheTo};
use super::{CacheError, Imports};
use crate::export::{self, ExportError, Layout};
use crate::objects::Objects;
use crate::ops::{self, Worker};
use crate::records::Records;
use crate::registry::push::{Blob, Content, Document, Outcome, Progress, Report, Target, Upload, push_all};
use crate::registry::{Descriptor, Reference};
use crate::runtime::blocking;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What a build made, for caches.
#[derive(Clone)]
pub(crate) struct Made {
    /// What was built.
    pub(crate) graph: Arc<Graph>,
    /// The keys of the graph's vertices, by number.
    pub(crate) keys: Vec<Option<Key>>,
    /// The layers of the targets.
    pub(crate) targets: Vec<Arc<[DiffId]>>,
    /// What was recorded.
    pub(crate) records: Arc<Records>,
    /// Who can fetch layers.
    pub(crate) worker: Arc<Worker>,
}

/// Writes one cache.
pub(crate) async fn export(to: CacheTo, made: Made, events: Events) -> Result<(), CacheError> {
    let subject = subject(&to);
    events.send(Event::Started {
        subject: subject.clone(),
        why: None,
    });
    let begun = Instant::now();
    let result = write(&to, &made, &events).await;
    let took = begun.elapsed();
    match result {
        Err(error) if to.ignore_error => {
            events.send(Event::Finished { subject, took });
            events.warn(format!("failed to export a cache to {}: {error}", to.title()));
            Ok(())
        }
        Err(error) => {
            events.send(Event::Failed {
                subject,
                error: error.to_string(),
            });
            Err(error)
        }
        Ok(()) => {
            events.send(Event::Finished { subject, took });
            Ok(())
        }
    }
}

async fn write(to: &CacheTo, made: &Made, events: &Events) -> Result<(), CacheError> {
    let in_target: HashSet<DiffId> = made
        .targets
        .iter()
        .flat_map(|layers| layers.iter().copied())
        .collect();
    let mut contents = Contents::of(made, Some(&in_target).filter(|_| to.mode == CacheMode::Min))?;
    if to.mounts {
        contents.add_mounts(made, events).await?;
    }
    match to.place.clone() {
        CachePlace::Local { dest, tag, reset } => write_layout(contents, to, made, &dest, (tag, reset)).await,
        CachePlace::Registry { reference } => push(contents, to, made, reference, events).await,
        CachePlace::S3(settings) => bring(contents, to, made, Objects::s3(settings), events).await,
        CachePlace::Gha(settings) => bring(contents, to, made, Objects::gha(settings), events).await,
        // It leaves with the image.
        CachePlace::Inline => Ok(()),
    }
}

async fn write_layout(
    contents: Contents,
    to: &CacheTo,
    made: &Made,
    dest: &Path,
    (tag, reset): (String, bool),
) -> Result<(), CacheError> {
    let layout = Arc::new(open(dest)?);
    let has = |blob: &BlobEntry| layout.contains(&blob.digest, blob.size);
    let wanted = contents.layers_to_fetch(made, to, has);
    made.worker.ensure(&wanted).await?;
    let (to, made) = (to.clone(), made.clone());
    blocking(move || {
        let packed = contents.pack(&made, &to, |blob| layout.put_layer(&blob))?;
        layout.put_bytes(&Digest::of(&packed.config), &packed.config)?;
        layout.put_bytes(&Digest::of(&packed.manifest), &packed.manifest)?;
        list(&layout, &packed.manifest, &tag, reset)?;
        if reset {
            let blobs = packed.document.layers.iter();
            let blobs = blobs.filter_map(|layer| layer.blob.as_ref());
            let mut kept: HashSet<String> = blobs.map(|blob| blob.digest.hex()).collect();
            kept.extend([&packed.config, &packed.manifest].map(|bytes| Digest::of(bytes).hex()));
            layout.remove_others(&kept)?;
        }
        Ok(())
    })
    .await
}

/// Brings the cache into a repository, its tag last.
async fn push(
    contents: Contents,
    to: &CacheTo,
    made: &Made,
    reference: Reference,
    events: &Events,
) -> Result<(), CacheError> {
    let repository = reference.repository();
    let imports = made.records.imports();
    let wanted = contents.layers_to_fetch(made, to, |blob: &BlobEntry| {
        imports.lists(&blob.digest, &repository)
    });
    made.worker.ensure(&wanted).await?;
    let subject = subject(to);
    let (to, task) = (to.clone(), made.clone());
    let (upload, _) = blocking(move || contents.into_upload(&task, &to)).await?;
    let targets = Target::of_names(&[reference.to_string()])?;
    push_all(
        &made.worker.store,
        &upload,
        &targets,
        &ops::upload_report(events, &subject),
    )
    .await?;
    Ok(())
}

/// Brings the cache to a place that knows only bytes, its manifest last.
async fn bring(
    contents: Contents,
    to: &CacheTo,
    made: &Made,
    objects: Objects,
    events: &Events,
) -> Result<(), CacheError> {
    let imports = made.records.imports();
    let place = objects.place();
    let wanted = contents.layers_to_fetch(made, to, |blob: &BlobEntry| imports.lists(&blob.digest, &place));
    made.worker.ensure(&wanted).await?;
    let report = ops::upload_report(events, &subject(to));
    let (to, task) = (to.clone(), made.clone());
    let (upload, elsewhere) = blocking(move || contents.into_upload(&task, &to)).await?;
    let mut puts = Vec::with_capacity(upload.blobs.len());
    for blob in &upload.blobs {
        puts.push(put(&objects, blob, &report));
    }
    stream::iter(puts)
        .buffer_unordered(objects.n_parallel())
        .try_collect::<()>()
        .await?;
    // What is only passed on counts as used too, or it would be thrown away some day although every build relies on
    // it. One that is gone is found out by who needs it.
    let mut asked = Vec::with_capacity(elsewhere.len());
    for blob in &elsewhere {
        asked.push(objects.has(&blob.digest, blob.size));
    }
    stream::iter(asked)
        .buffer_unordered(objects.n_parallel())
        .try_collect::<Vec<bool>>()
        .await?;
    for manifest in &upload.manifests {
        objects.put_manifest(&manifest.bytes).await?;
    }
    Ok(())
}

/// Brings one blob there, and tells so.
async fn put(objects: &Objects, blob: &Blob, report: &Report) -> Result<(), CacheError> {
    let outcome = match objects.put(blob).await? {
        true => Outcome::Pushed,
        false => Outcome::Exists,
    };
    report(Progress {
        blob: blob.digest,
        done_bytes: blob.size_bytes,
        total_bytes: blob.size_bytes,
        outcome: Some(outcome),
    });
    Ok(())
}

/// Returns what progress calls the export of a cache.
fn subject(to: &CacheTo) -> Subject {
    Subject::internal(&format!("exporting cache to {}", to.title()))
}

/// Opens the directory, making it with its parents when missing.
fn open(dest: &Path) -> Result<Layout, ExportError> {
    if let Some(parent) = dest.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(parent)
            .map_err(|source| ExportError::Destination {
                path: dest.to_owned(),
                source,
            })?;
    }
    Layout::open(dest)
}

/// Returns what a manifest says that it is.
fn media_type(manifest: &[u8]) -> String {
    let manifest: Value = serde_json::from_slice(manifest).expect("because it was just written");
    manifest["mediaType"].as_str().unwrap_or_default().to_owned()
}

/// Lists the cache in the layout, in the place of one of the same name.
fn list(layout: &Layout, manifest: &[u8], tag: &str, alone: bool) -> Result<(), ExportError> {
    let entry = json!({
        "mediaType": media_type(manifest),
        "digest": Digest::of(manifest).to_string(),
        "size": manifest.len(),
        "annotations": {REF_NAME: tag},
    });
    let mut entries = if alone { Vec::new() } else { layout.entries()? };
    entries.retain(|other| other["annotations"][REF_NAME] != json!(tag));
    entries.push(entry);
    layout.set_entries(entries)
}

/// A cache, ready to be written but for its blobs.
struct Packed {
    document: CacheDocument,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

/// What belongs into a cache.
pub(super) struct Contents {
    records: Vec<Record>,
    hashes: Vec<HashEntry>,
    /// All that the records name, each once.
    layers: Vec<DiffId>,
    /// The content of cache mounts.
    mounts: Vec<(About, DiffId)>,
    /// Those of base images among them.
    bases: HashSet<DiffId>,
}

impl Contents {
    /// Collects the records of a build: all, or those with no other layers than these.
    pub(super) fn of(made: &Made, within: Option<&HashSet<DiffId>>) -> Result<Self, CacheError> {
        let (graph, records) = (&made.graph, &made.records);
        let mut contents = Self {
            records: Vec::new(),
            hashes: Vec::new(),
            layers: Vec::new(),
            mounts: Vec::new(),
            bases: records.bases().clone(),
        };
        let (mut seen_layers, mut seen_keys, mut seen_hashes) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        for id in graph.ids() {
            for input in &graph.vertex(id).inputs {
                // Without these a key can't be computed where the layers aren't.
                if let (InputView::Paths(selection), Some(key)) =
                    (&input.view, made.keys[input.vertex.index()])
                    && seen_hashes.insert((key, selection.clone()))
                    && let Some(hash) = records.tree_hash(&key, selection)?
                {
                    contents.hashes.push(HashEntry {
                        key,
                        selection: selection.clone(),
                        hash,
                    });
                }
            }
            let Some(key) = made.keys[id.index()].filter(|key| seen_keys.insert(*key)) else {
                continue;
            };
            let Some(record) = records.peek(&key)? else {
                continue;
            };
            let fits = |within: &HashSet<DiffId>| record.layers.iter().all(|layer| within.contains(layer));
            if !within.is_none_or(fits) {
                continue;
            }
            let new = record.layers.iter().filter(|layer| seen_layers.insert(**layer));
            contents.layers.extend(new);
            contents.records.push(record);
        }
        Ok(contents)
    }

    /// Makes the document of a cache that says nothing of blobs, nor anything of records but what they became.
    pub(super) fn without_blobs(self, made: &Made, epoch: Option<i64>) -> CacheDocument {
        let (store, imports) = (&made.worker.store, made.records.imports());
        let made_unix = |layer: &DiffId| {
            let when = store.layers().made_unix(layer);
            epoch.or(when).or_else(|| imports.made_unix(layer))
        };
        let entries = self.layers.iter().map(|layer| LayerEntry {
            diff_id: *layer,
            blob: None,
            made: made_unix(layer).filter(|_| !self.bases.contains(layer)),
        });
        let records = self.records.iter().map(|record| Record {
            components: Vec::new(),
            created_unix_ms: record.layers.last().and_then(made_unix).unwrap_or(0) * 1000,
            took_ms: 0,
            ..record.clone()
        });
        let records: Vec<Record> = records.collect();
        CacheDocument::new(entries.collect(), &records, self.hashes, Vec::new())
    }

    /// Adds the content of the cache mounts that the build's steps have: as it is here, or else as a cache had it.
    async fn add_mounts(&mut self, made: &Made, events: &Events) -> Result<(), CacheError> {
        let mut seen = BTreeSet::new();
        let execs = made.graph.ids().filter_map(|id| match &made.graph.vertex(id).op {
            Op::Exec(exec) => Some(&exec.mounts),
            _ => None,
        });
        for mount in execs.flatten() {
            let Mount::Cache(cache) = mount else { continue };
            let about = ops::about(cache, &made.worker.cache_scope);
            if !seen.insert(about.identity()) {
                continue;
            }
            let (store, wanted) = (Arc::clone(&made.worker.store), about.clone());
            let packed = match blocking(move || ops::pack_mount(&store, &wanted)).await? {
                Some(layer) => Some(layer),
                None => made.worker.seeds.get(&about.anywhere().identity()).copied(),
            };
            match packed {
                Some(layer) => {
                    if !self.layers.contains(&layer) {
                        self.layers.push(layer);
                    }
                    self.mounts.push((about.anywhere(), layer));
                }
                None if made.worker.store.mounts().contains(&about) => events.warn(format!(
                    "the cache mount `{}` is in use and not part of the cache that is exported",
                    about.id
                )),
                None => {}
            }
        }
        Ok(())
    }

    /// Returns the layers that are neither here nor at the place, which has blobs of them if `has` says so.
    fn layers_to_fetch(&self, made: &Made, to: &CacheTo, has: impl Fn(&BlobEntry) -> bool) -> Vec<DiffId> {
        let is_to_fetch = |layer: &&DiffId| {
            let known = made.records.imports().blob(layer);
            !self.bases.contains(layer)
                && !made.worker.store.layers().contains(layer)
                && (to.compression.force || !known.is_some_and(&has))
        };
        self.layers.iter().filter(is_to_fetch).copied().collect()
    }

    /// Makes the documents, and all of it ready to be sent; returns as well the blobs that aren't here. Blocks.
    fn into_upload(self, made: &Made, to: &CacheTo) -> Result<(Upload, Vec<BlobEntry>), CacheError> {
        let blobs = RefCell::new(Vec::new());
        let packed = self.pack(made, to, |blob| {
            blobs.borrow_mut().push(blob.into_upload());
            Ok(())
        })?;
        let mut blobs = blobs.into_inner();
        let here: HashSet<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        let named = packed.document.layers.into_iter();
        let named = named.filter_map(|layer| layer.blob);
        let elsewhere = named.filter(|blob| !here.contains(&blob.digest)).collect();
        blobs.push(Blob {
            digest: Digest::of(&packed.config),
            size_bytes: packed.config.len() as u64,
            content: Content::Memory(packed.config.into()),
        });
        let descriptor = Descriptor {
            media_type: media_type(&packed.manifest),
            digest: Digest::of(&packed.manifest),
            size_bytes: packed.manifest.len() as u64,
        };
        let bytes = packed.manifest;
        let manifests = vec![Document { descriptor, bytes }];
        Ok((Upload { blobs, manifests }, elsewhere))
    }

    /// Makes the documents, and hands each blob of what is here to `put`. Blocks.
    fn pack(
        self,
        made: &Made,
        to: &CacheTo,
        put: impl Fn(export::Blob) -> Result<(), ExportError>,
    ) -> Result<Packed, CacheError> {
        let document = self.document(&made.worker.store, made.records.imports(), to, put)?;
        let config = document.to_bytes();
        let signer = to.sign.as_deref().map(Signer::read).transpose()?;
        let signature = signer.map(|signer| signer.sign(&Digest::of(&config)));
        let manifest = document.manifest(&config, to.oci_types, signature);
        Ok(Packed {
            document,
            config,
            manifest,
        })
    }

    /// Brings the layers that are here into form, hands each blob to `put`, and says what all of it is.
    fn document(
        self,
        store: &Store,
        imports: &Imports,
        to: &CacheTo,
        put: impl Fn(export::Blob) -> Result<(), ExportError>,
    ) -> Result<CacheDocument, CacheError> {
        let mut entries = Vec::with_capacity(self.layers.len());
        for diff_id in self.layers {
            let is_here = store.layers().contains(&diff_id);
            let blob = match imports.blob(&diff_id) {
                _ if self.bases.contains(&diff_id) => None,
                Some(blob) if !is_here => Some(blob.clone()),
                _ => {
                    let blob = export::of_layer(store, &diff_id, to.compression)?;
                    let entry = BlobEntry {
                        media_type: blob.form.media_type(to.oci_types).to_owned(),
                        digest: blob.digest,
                        size: blob.size_bytes,
                    };
                    put(blob)?;
                    Some(entry)
                }
            };
            let made = store.layers().made_unix(&diff_id);
            entries.push(LayerEntry {
                made: blob.as_ref().and(made.or_else(|| imports.made_unix(&diff_id))),
                diff_id,
                blob,
            });
        }
        Ok(CacheDocument::new(
            entries,
            &self.records,
            self.hashes,
            self.mounts,
        ))
    }
}
