//! The image store as the node wants it.

use container::runtime::{ImageConfig, Rootfs};
use image::{ImageError as StoreError, ImageStore, Reference, RegistryAuth};

use crate::images::{Credentials, Image, ImageError, ImageRecord, ImageReply, Images};

impl Images for ImageStore {
    fn find<'a>(&'a self, reference: &'a str) -> ImageReply<'a, Option<Image>> {
        Box::pin(async move {
            let found = self.resolve(reference).map_err(|error| pull_error(reference, &error))?;
            Ok(found.map(|record| image_of(record, reference)))
        })
    }

    fn pull<'a>(&'a self, reference: &'a str, credentials: &'a [Credentials]) -> ImageReply<'a, Image> {
        Box::pin(async move {
            let parsed: Reference = reference.parse().map_err(|error| pull_error(reference, &error))?;
            let auth = auth_for(&parsed.registry, credentials);
            let (store, name) = (self.clone(), reference.to_owned());
            // The store's pull is not known to be `Send`, so it stays on the one thread that drives it.
            let pulled = tokio::task::spawn_blocking(move || {
                tokio::runtime::Handle::current().block_on(ImageStore::pull(&store, &name, &auth, |_| ()))
            });
            let record = pulled.await.unwrap_or_else(|error| Err(StoreError::Worker(error)));
            record.map(|record| image_of(record, reference)).map_err(|error| pull_error(reference, &error))
        })
    }

    fn prepare_rootfs<'a>(&'a self, image_id: &'a str, container_id: &'a str) -> ImageReply<'a, Rootfs> {
        Box::pin(async move {
            let failed =
                |message: String| ImageError::Rootfs { container_id: container_id.to_owned(), message };
            let record = self.resolve(image_id).map_err(|error| failed(whole(&error)))?;
            let record = record.ok_or_else(|| failed(format!("image {image_id} is gone")))?;
            let root = self.prepare(&record, container_id).map_err(|error| failed(whole(&error)))?;
            Ok(Rootfs { lower: root.lower, upper: root.upper, work: root.work, merged: root.merged })
        })
    }

    fn remove_rootfs<'a>(&'a self, container_id: &'a str) -> ImageReply<'a, ()> {
        Box::pin(async move {
            let (store, id) = (self.clone(), container_id.to_owned());
            let failed =
                |message: String| ImageError::Rootfs { container_id: container_id.to_owned(), message };
            let released = tokio::task::spawn_blocking(move || store.release(&id)).await;
            let released = released.map_err(|error| failed(error.to_string()))?;
            released.map_err(|error| failed(whole(&error)))
        })
    }

    fn list(&self) -> ImageReply<'_, Vec<ImageRecord>> {
        Box::pin(async move {
            let all = ImageStore::list(self).map_err(|error| pull_error("", &error))?;
            let record = |image: image::ImageRecord| ImageRecord {
                names: image.digests.into_iter().chain(image.tags).collect(),
                size_bytes: image.size_bytes,
            };
            Ok(all.into_iter().map(record).collect())
        })
    }
}

fn image_of(record: image::ImageRecord, reference: &str) -> Image {
    let normal = reference.parse::<Reference>().map_or_else(|_| reference.to_owned(), |r| r.to_string());
    let name = if record.tags.contains(&normal) { Some(normal) } else { record.tags.first().cloned() };
    Image {
        repo_digest: record.digests.first().cloned().unwrap_or_else(|| record.id.clone()),
        name: name.unwrap_or_else(|| reference.to_owned()),
        id: record.id,
        size_bytes: record.size_bytes,
        config: ImageConfig {
            entrypoint: record.config.entrypoint,
            cmd: record.config.cmd,
            env: record.config.env,
            user: record.config.user,
            working_dir: record.config.working_dir,
            stop_signal: record.config.stop_signal,
        },
    }
}

/// An error with all that caused it, for a message a user reads.
fn whole(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}

fn pull_error(reference: &str, error: &StoreError) -> ImageError {
    let message = whole(error);
    match error {
        StoreError::InvalidReference { detail, .. } => ImageError::InvalidName {
            reference: reference.to_owned(),
            message: format!("invalid reference format{detail}"),
        },
        _ => ImageError::Pull { reference: reference.to_owned(), message },
    }
}

/// The credentials for a registry: secrets name it with a scheme and a path, or not.
fn auth_for(registry: &str, credentials: &[Credentials]) -> RegistryAuth {
    let host = |name: &str| {
        let name = name.trim_start_matches("https://").trim_start_matches("http://");
        let host = name.split('/').next().unwrap_or_default().to_owned();
        if matches!(host.as_str(), "index.docker.io" | "registry-1.docker.io") {
            "docker.io".to_owned()
        } else {
            host
        }
    };
    let found = credentials.iter().find(|c| host(&c.registry) == registry);
    found.map_or(RegistryAuth::Anonymous, |c| RegistryAuth::Basic {
        username: c.username.clone(),
        password: c.password.clone(),
    })
}
