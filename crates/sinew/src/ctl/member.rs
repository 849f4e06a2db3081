//! `member`: who the members are, and how that changes.

use api::etcdserverpb::{MemberAddRequest, MemberUpdateRequest};
use clap::{Args, Subcommand};

use super::client::Client;
use super::kv::is_serializable;
use super::upkeep::member_id;
use super::{Failure, Settings, Streams};
use crate::print::{Answer, Format};
use crate::quote::quoted;

/// Arguments of `member`.
#[derive(Debug, Args)]
#[command(after_help = "Replace a dead member in two commands, then start the new one:
  sinew member remove 8211f1d0f64f3269
  sinew member add four --peer-urls=http://10.0.0.4:2380
  sinew serve --name four --initial-cluster-state existing --initial-cluster ...
The second prints what the third needs. A new member gets the data first and votes as
soon as it has it; with --learner it does not vote until it is promoted.")]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    verb: MemberVerb,
}

#[derive(Debug, Subcommand)]
enum MemberVerb {
    /// Id, status, name, peer URLs, client URLs and whether it is a learner, for every member
    List {
        /// l: linearizable; s: serializable, from the asked member's own state, possibly old
        #[arg(long, default_value = "l")]
        consistency: String,
    },
    /// Take a new member in
    Add {
        /// Its name
        name: String,
        /// Where the others reach it
        #[arg(long, value_name = "URL,...", required = true)]
        peer_urls: String,
        /// Do not let it vote until it is promoted
        #[arg(long)]
        learner: bool,
    },
    /// Let a learner vote
    Promote {
        /// The member, in hexadecimal
        id: String,
    },
    /// Remove a member for good
    Remove {
        /// The member, in hexadecimal
        id: String,
    },
    /// Say where a member is to be reached from now on
    Update {
        /// The member, in hexadecimal
        id: String,
        /// Where the others reach it
        #[arg(long, value_name = "URL,...", required = true)]
        peer_urls: String,
    },
}

/// Runs `member`.
pub(super) async fn run(arguments: &MemberArgs, settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let client = Client::new(settings);
    let changes = !matches!(arguments.verb, MemberVerb::List { .. });
    if changes && settings.style.format == Format::Table {
        return Err(Failure::Usage("table not supported as output format".to_owned()));
    }
    match &arguments.verb {
        MemberVerb::List { consistency } => {
            let linearizable = !is_serializable(consistency)?;
            let answer = client.members(linearizable).await?;
            streams.show(&Answer::Members(answer), settings)
        }
        MemberVerb::Add { name, peer_urls, learner } => {
            let request = MemberAddRequest { peer_urls: urls(peer_urls), is_learner: *learner };
            let answer = client.member_add(request).await.map_err(advise)?;
            let environment = environment(name, peer_urls, &answer);
            streams.show(&Answer::MemberAdd(answer), settings)?;
            if settings.style.format == Format::Simple {
                streams.out.write_all(environment.as_bytes())?;
            }
            Ok(())
        }
        MemberVerb::Promote { id } => {
            let id = member_id(id)?;
            let answer = client.member_promote(id).await.map_err(advise)?;
            streams.show(&Answer::MemberPromote(id, answer), settings)
        }
        MemberVerb::Remove { id } => {
            let id = member_id(id)?;
            let answer = client.member_remove(id).await.map_err(advise)?;
            streams.show(&Answer::MemberRemove(id, answer), settings)
        }
        MemberVerb::Update { id, peer_urls } => {
            let id = member_id(id)?;
            let request = MemberUpdateRequest { id, peer_urls: urls(peer_urls) };
            let answer = client.member_update(request).await.map_err(advise)?;
            streams.show(&Answer::MemberUpdate(id, answer), settings)
        }
    }
}

fn urls(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

/// What the new member is to be started with, as etcdctl prints it.
fn environment(name: &str, peer_urls: &str, answer: &api::etcdserverpb::MemberAddResponse) -> String {
    let new = answer.member.as_ref().map_or(0, |member| member.id);
    let named = answer.members.iter().flat_map(|member| {
        let shown = if member.id == new { name } else { member.name.as_str() };
        member.peer_urls.iter().map(move |url| format!("{shown}={url}"))
    });
    let cluster = named.collect::<Vec<_>>().join(",");
    let text = |text: &str| quoted(text.as_bytes());
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        text(name),
        text(&cluster),
        text(peer_urls)
    )
}

/// etcd's words say what is wrong; what to do about it stands behind them.
fn advise(failure: Failure) -> Failure {
    let Failure::Request(reason) = failure else { return failure };
    let advice = match reason.as_str() {
        "etcdserver: re-configuration failed due to not enough started members" => {
            "; the members that would be left could not decide anything. Start or remove dead ones first, and start \
             the member added last before you add another"
        }
        "etcdserver: can only promote a learner member which is in sync with leader" => {
            "; start it, and try again when it has the data"
        }
        "etcdserver: too many learner members in cluster" => "; promote or remove the one there is",
        "etcdserver: Peer URLs already exists" => {
            "; another member is to be reached there: to replace it, remove it first"
        }
        _ => "",
    };
    Failure::Request(reason + advice)
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::{Member, MemberAddResponse};

    use super::*;

    #[test]
    fn a_new_member_is_told_how_to_start() {
        let member = |id, name: &str, url: &str| Member {
            id,
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            ..Member::default()
        };
        let new = member(2, "", "http://b:2380");
        let answer = MemberAddResponse {
            member: Some(new.clone()),
            members: vec![member(1, "one", "http://a:2380"), new],
            ..MemberAddResponse::default()
        };
        let expected = "
ETCD_NAME=\"two\"
ETCD_INITIAL_CLUSTER=\"one=http://a:2380,two=http://b:2380\"
ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://b:2380\"
ETCD_INITIAL_CLUSTER_STATE=\"existing\"
";
        assert_eq!(environment("two", "http://b:2380", &answer), expected);
    }
}
