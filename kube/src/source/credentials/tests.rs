use super::*;

#[test]
fn targets() {
    let parse = |text: &str| text.parse::<Target>().ok();
    let file = |path: &str, context: Option<&str>| {
        Some(Target::Kubeconfig { path: path.into(), context: context.map(str::to_owned) })
    };
    assert_eq!(parse("kubernetes"), Some(Target::InCluster));
    assert_eq!(parse("kubernetes:/a/b"), file("/a/b", None));
    assert_eq!(parse("kubernetes:/a/b#we"), file("/a/b", Some("we")));
    for bad in ["", "kube", "kubernetes:", "kubernetes:#we", "kubernetes:/a#", "kubernetess", "dir:/a"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

fn kubeconfig(port: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
         clusters: [{{name: k, cluster: {{server: 'http://127.0.0.1:{port}'}}}}], \
         users: [{{name: u, user: {{tokenFile: token}}}}]}}"
    )
}

/// What a client was made of shows in how often it is made anew.
#[tokio::test]
async fn changed_files_make_a_new_client_and_broken_ones_keep_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let (path, token) = (dir.path().join("config"), dir.path().join("token"));
    let credentials = Credentials::new(Target::Kubeconfig { path: path.clone(), context: None });
    assert!(credentials.client().await.is_err_and(|why| why.contains("config")));
    std::fs::write(&token, "one").unwrap();
    std::fs::write(&path, kubeconfig(1)).unwrap();
    credentials.client().await.unwrap();
    let files = async || credentials.current.lock().await.files.clone();
    let first = files().await;
    assert_eq!(first.keys().collect::<Vec<_>>(), [&path, &token]);

    credentials.client().await.unwrap();
    assert_eq!(files().await, first);
    std::fs::write(dir.path().join("new"), "another").unwrap();
    std::fs::rename(dir.path().join("new"), &token).unwrap();
    credentials.client().await.unwrap();
    let second = files().await;
    assert_ne!(second, first);

    std::fs::write(&path, "{").unwrap();
    credentials.client().await.unwrap();
    assert_eq!(files().await, second, "the last client stays");
    std::fs::write(&path, kubeconfig(2)).unwrap();
    credentials.client().await.unwrap();
    assert_ne!(files().await, second);
}

#[tokio::test]
async fn a_client_that_a_server_doubts_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    std::fs::write(dir.path().join("token"), "one").unwrap();
    std::fs::write(&path, kubeconfig(1)).unwrap();
    let credentials = Credentials::new(Target::Kubeconfig { path, context: None });
    credentials.client().await.unwrap();
    credentials.doubt().await;
    assert!(credentials.current.lock().await.doubted);
    credentials.client().await.unwrap();
    assert!(!credentials.current.lock().await.doubted);
}
