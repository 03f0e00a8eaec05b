//! From a parsed command line to a printed result.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use tombolo_core::report::FlowsRequest;

use crate::args::{
    CertsCommand, Cli, Clusters, Command, ConnectArgs, DisconnectArgs, ExplainArgs, FlowsArgs, Format, NodesArgs,
    in_namespace,
};
use crate::certs::{self, Leaves};
use crate::clock::unix_seconds;
use crate::cluster::Cluster;
use crate::connect::{self, Done};
use crate::flows::{self, Heard};
use crate::init;
use crate::kube::connect::Checked;
use crate::kube::{self, live::View};
use crate::output::{Report, print, print_error};
use crate::query::{self, Answer, Explained, FromNode, Listed};
use crate::status;

/// Runs one command; the exit status is 0 when all is well and 1 otherwise.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Unwell) => ExitCode::FAILURE,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// What a result says about the mesh.
enum Verdict {
    Well,
    Unwell,
}

fn dispatch(cli: Cli) -> Result<Verdict> {
    let format = cli.output;
    let now = unix_seconds();
    match cli.command {
        Command::Enable(args) => Ok(show(&block_on(kube::enable::enable(&args, now))??, format)),
        Command::Disable(args) => Ok(show(&block_on(kube::disable::disable(&args))??, format)),
        Command::Init(args) => Ok(show(&init::init(&args, now)?, format)),
        Command::Connect(args) if args.contexts.context.is_some() => {
            let said = |checked: &Checked| {
                if format == Format::Text {
                    print(checked, format);
                }
            };
            Ok(show(&block_on(kube::connect::connect(&args.contexts, now, said))??, format))
        }
        Command::Connect(args) => Ok(show(&connect_all(&args, now)?, format)),
        Command::Disconnect(args) if args.contexts.context.is_some() => {
            Ok(show(&block_on(kube::connect::disconnect(&args.contexts, &args.peers))??, format))
        }
        Command::Disconnect(args) => Ok(show(&disconnect_all(&args)?, format)),
        Command::Certs(command) => certs_command(command, format, now),
        Command::Status(args) if !args.contexts.contexts.is_empty() => {
            let view = View::new(format);
            Ok(show(&block_on(kube::status::status(&args.contexts, args.wait, unix_seconds, view))?, format))
        }
        Command::Status(args) => {
            let clusters = open(&args.clusters)?;
            Ok(show(&block_on(status::status(&clusters, args.wait))?, format))
        }
        Command::Services(args) => {
            let clusters = open(&args.clusters)?;
            Ok(show(&block_on(services(&clusters, &args))??, format))
        }
        Command::Explain(args) => {
            let clusters = open(&args.clusters)?;
            Ok(show(&block_on(explain(&clusters, &args))??, format))
        }
        Command::Flows(args) => {
            let clusters = open(&args.clusters)?;
            match block_on(read_flows(&clusters, &args, format))?? {
                Heard::All => Ok(Verdict::Well),
                Heard::Some => Ok(Verdict::Unwell),
            }
        }
    }
}

fn show<R: Report>(report: &R, format: Format) -> Verdict {
    print(report, format);
    if report.ok() { Verdict::Well } else { Verdict::Unwell }
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?.block_on(future))
}

fn open(clusters: &Clusters) -> Result<Vec<Cluster>> {
    Ok(clusters.clusters.iter().map(|dir| Cluster::open(dir)).collect::<Result<Vec<_>, _>>()?)
}

fn own(dir: Option<&Path>) -> Result<Cluster> {
    Ok(Cluster::open(dir.context("--cluster or --context is needed")?)?)
}

fn connect_all(args: &ConnectArgs, now: u64) -> Result<Done> {
    let own = own(args.cluster.as_deref())?;
    let others = args.directories.iter().map(|dir| Cluster::open(dir)).collect::<Result<Vec<_>, _>>()?;
    connect::distinct(&others)?;
    let mut done = Done::default();
    for other in &others {
        done.add(connect::connect(&own, other, now)?);
    }
    Ok(done)
}

fn disconnect_all(args: &DisconnectArgs) -> Result<Done> {
    let own = own(args.cluster.as_deref())?;
    let mut done = Done::default();
    for dir in &args.directories {
        let other = Cluster::open(dir)
            .context("the destination cannot be read; --peer NAME disconnects this side without it")?;
        done.add(connect::disconnect(&own, &other)?);
    }
    for peer in &args.peers {
        done.add(connect::forget(&own, peer)?);
    }
    Ok(done)
}

fn certs_command(command: CertsCommand, format: Format, now: u64) -> Result<Verdict> {
    let made = match command {
        CertsCommand::Init { dir, name, days, force } => certs::init(&dir, &name, days, force.into(), now)?,
        CertsCommand::ImportCa { dir, cert, key, secret, force } => match (cert, key, secret) {
            (Some(cert), Some(key), _) => certs::import_files(&dir, &cert, &key, force.into())?,
            (_, _, Some(secret)) => certs::import_secret(&dir, &secret, force.into())?,
            _ => bail!("--cert and --key, or --secret, are needed"),
        },
        CertsCommand::Issue { cluster_name, ca, dir, leaves, force } => {
            let leaves = Leaves { cluster: &cluster_name, ca: &ca, dir: &dir, args: &leaves, replace: force.into() };
            certs::issue(&leaves, now)?
        }
        CertsCommand::Trust { dir, ca, only } => certs::trust(&dir, &ca, only)?,
        CertsCommand::Show { paths } => certs::show(&paths)?,
        CertsCommand::Verify { clusters } => return Ok(show(&certs::verify(&open(&clusters)?, now), format)),
    };
    Ok(show(&made, format))
}

async fn services(clusters: &[Cluster], args: &NodesArgs) -> Result<Listed> {
    let nodes = nodes(clusters, args.node.as_deref())?;
    let questions = nodes.into_iter().map(|(key, socket)| (key, async move { query::services(&socket).await }));
    let answers = query::all(questions).await;
    let answers = answers.into_iter().map(|((_, cluster, node), mut said)| {
        if let (Answer::Got(services), Some(namespace)) = (&mut said, &args.namespace) {
            services.retain(|view| view.service.namespace == *namespace);
        }
        FromNode { cluster, node, said }
    });
    Ok(Listed(answers.collect()))
}

/// How many of the flows that are kept a follower is shown first.
const BEFORE_FOLLOWING: u32 = 10;

async fn read_flows(clusters: &[Cluster], args: &FlowsArgs, format: Format) -> Result<Heard> {
    let nodes = nodes(clusters, args.node.as_deref())?;
    let nodes = nodes.into_iter().map(|((_, cluster, node), socket)| (cluster, node, socket)).collect();
    let service = args.service.as_deref().map(|service| in_namespace(service, &args.namespace));
    let limit = args.last.or(args.follow.then_some(BEFORE_FOLLOWING));
    flows::flows(nodes, FlowsRequest { follow: args.follow, service, limit }, format).await
}

/// Without a node named, the first that answers in each cluster speaks for it.
async fn explain(clusters: &[Cluster], args: &ExplainArgs) -> Result<Explained> {
    let service = in_namespace(&args.service, &args.namespace);
    let mut answers: Vec<FromNode<_>> = Vec::new();
    for ((_, cluster, node), socket) in nodes(clusters, args.node.as_deref())? {
        let answered = |a: &FromNode<_>| a.cluster == cluster && matches!(a.said, Answer::Got(_));
        if answers.iter().any(answered) {
            continue;
        }
        let said = query::explain(&socket, &service).await;
        if matches!(said, Answer::Got(_)) {
            answers.retain(|a| a.cluster != cluster);
        }
        answers.push(FromNode { cluster, node, said });
    }
    Ok(Explained { service, answers })
}

/// A node in the order in which clusters were named, and its socket.
type Node = ((usize, tombolo_core::id::ClusterName, String), String);

fn nodes(clusters: &[Cluster], only: Option<&str>) -> Result<Vec<Node>> {
    let all = clusters.iter().enumerate().flat_map(|(i, cluster)| {
        cluster.nodes.iter().map(move |(node, socket)| ((i, cluster.name.clone(), node.clone()), socket.clone()))
    });
    let chosen: Vec<Node> = all.filter(|((_, _, node), _)| only.is_none_or(|only| only == node)).collect();
    if chosen.is_empty() {
        let names: Vec<String> = clusters.iter().flat_map(|c| c.nodes.keys().cloned()).collect();
        match only {
            Some(node) => bail!("no node {node}: cluster.yaml has {}", names.join(", ")),
            None => bail!("no nodes: list them under nodes in cluster.yaml"),
        }
    }
    Ok(chosen)
}
