//! A connection with a cluster's API, by a kubeconfig or as a Pod.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Where the API is, and as whom to speak there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// As kubectl looks for it: the files of `KUBECONFIG`, else `~/.kube/config`, else as the Pod this runs in.
    #[default]
    Found,
    /// Through a kubeconfig.
    Kubeconfig {
        /// The file; as kubectl looks for it when absent.
        file: Option<PathBuf>,
        /// The context; the file's current one when absent.
        context: Option<String>,
    },
    /// With the token and the authority of the Pod this runs in.
    Pod,
}

/// Why there is no connection: nothing was sent yet, so what is wrong is in the files.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig.
    #[error("{file}: {source}")]
    Kubeconfig {
        /// The file, or the context when files were looked for.
        file: String,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// The Pod's files.
    #[error("as a Pod: {0}")]
    Pod(#[from] kube::config::InClusterError),
    /// Neither a kubeconfig nor a Pod's files.
    #[error("no cluster: {0}")]
    Nowhere(#[from] kube::config::InferConfigError),
    /// The certificates or the credentials cannot be used.
    #[error("the credentials cannot be used: {0}")]
    Credentials(#[from] Box<kube::Error>),
}

impl Access {
    /// The settings of a client: the server's address, its authority, credentials, time-outs.
    pub async fn config(&self) -> Result<Config, AccessError> {
        match self {
            Self::Found => Ok(Config::infer().await?),
            Self::Pod => Ok(Config::incluster()?),
            Self::Kubeconfig { file, context } => {
                let name = file.as_ref().map_or_else(|| "kubeconfig".to_owned(), |file| file.display().to_string());
                let wrong = |source| AccessError::Kubeconfig { file: name.clone(), source };
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                match file {
                    Some(file) => {
                        let read = Kubeconfig::read_from(file).map_err(wrong)?;
                        Config::from_custom_kubeconfig(read, &options).await.map_err(wrong)
                    }
                    None => Config::from_kubeconfig(&options).await.map_err(wrong),
                }
            }
        }
    }

    /// A client. Nothing is sent by this.
    pub async fn client(&self) -> Result<Client, AccessError> {
        // Who else uses rustls in this process names the same provider; the first one stays.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = self.config().await?;
        Client::try_from(config).map_err(|error| AccessError::Credentials(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r"
apiVersion: v1
kind: Config
current-context: ne
clusters:
- {name: ne, cluster: {server: https://10.0.0.1:6443}}
- {name: we, cluster: {server: https://10.0.0.2:6443}}
users:
- {name: admin, user: {token: secret}}
contexts:
- {name: ne, context: {cluster: ne, user: admin}}
- {name: we, context: {cluster: we, user: admin}}
";

    #[tokio::test]
    async fn a_context_names_the_cluster_and_the_current_one_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("config"));
        std::fs::write(dir.path().join("config"), TWO).unwrap();
        for (context, host) in [(None, "10.0.0.1"), (Some("we"), "10.0.0.2")] {
            let access = Access::Kubeconfig { file: file.clone(), context: context.map(str::to_owned) };
            let config = access.config().await.unwrap();
            assert_eq!(config.cluster_url.host(), Some(host));
            access.client().await.unwrap();
        }
        let access = Access::Kubeconfig { file: file.clone(), context: Some("fc".to_owned()) };
        let error = access.config().await.unwrap_err().to_string();
        assert!(error.contains("config") && error.contains("fc"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_named() {
        let access = Access::Kubeconfig { file: Some("/no/such/file".into()), context: None };
        let error = access.client().await.err().unwrap().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
