BEGIN TRANSACTION;
CREATE TABLE agent (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	role VARCHAR NOT NULL, 
	scaffold VARCHAR NOT NULL, 
	proposer VARCHAR NOT NULL, 
	model VARCHAR, 
	settings JSON NOT NULL, 
	CONSTRAINT pk_agent PRIMARY KEY (id), 
	CONSTRAINT fk_agent_campaign_id FOREIGN KEY(campaign_id) REFERENCES campaign (id), 
	CONSTRAINT uq_agent_campaign_id_name UNIQUE (campaign_id, name)
);
INSERT INTO "agent" VALUES(1,1,'references','reference','one-shot','fixed',NULL,'{"options": {"patterns": ["A+M"]}, "scaffold": {}}');
INSERT INTO "agent" VALUES(2,1,'evolution','search','tournament','evolution',NULL,'{"options": {}, "scaffold": {}}');
INSERT INTO "agent" VALUES(3,1,'random','control','one-shot','random',NULL,'{"options": {}, "scaffold": {}}');
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE artifact (
	sha256 VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	path VARCHAR NOT NULL, 
	size INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_artifact PRIMARY KEY (sha256)
);
CREATE TABLE budget_entry (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	proposal_id INTEGER NOT NULL, 
	kind VARCHAR NOT NULL, 
	calls INTEGER NOT NULL, 
	usd DOUBLE, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_budget_entry PRIMARY KEY (id), 
	CONSTRAINT fk_budget_entry_campaign_id FOREIGN KEY(campaign_id) REFERENCES campaign (id), 
	CONSTRAINT fk_budget_entry_proposal_id FOREIGN KEY(proposal_id) REFERENCES proposal (id)
);
CREATE TABLE campaign (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	recipe JSON NOT NULL, 
	seed INTEGER NOT NULL, 
	lag INTEGER NOT NULL, 
	workers INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	format INTEGER NOT NULL, 
	started DATETIME NOT NULL, 
	finished DATETIME, 
	seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_campaign PRIMARY KEY (id)
);
INSERT INTO "campaign" VALUES(1,'released','{"name": "released", "description": "", "seed": 3, "space": {"primitives": ["A", "M"], "layers": [2, 2], "preset": "mini", "options": false}, "evaluation": {"profile": "lra-standins", "tasks": ["lra-text"], "timeout_seconds": 600.0}, "agents": [{"name": "evolution", "proposer": "evolution", "scaffold": null, "model": null, "options": {}, "scaffold_options": {}}], "controls": [{"name": "random", "proposer": "random", "scaffold": null, "model": null, "options": {}, "scaffold_options": {}}], "budget": {"evaluations": 2, "seconds": null, "calls": null, "usd": null}, "rungs": {"count": 1, "eta": 3}, "references": {"patterns": {"llama": "A+M"}, "seeds": 2}, "confirm": {"finalists": 1, "seeds": 2, "level": 0.95}, "workers": 1, "lag": 1, "reproducible": true, "prices": {}}',3,1,1,'done',1,'2026-11-25 14:58:14.356634','2026-11-25 15:04:59.958323',4.05596455164000872176e+02);
CREATE TABLE candidate (
	id INTEGER NOT NULL, 
	content_hash VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	name VARCHAR, 
	pattern VARCHAR NOT NULL, 
	preset VARCHAR NOT NULL, 
	params INTEGER NOT NULL, 
	flops_per_token DOUBLE NOT NULL, 
	state_bytes INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_candidate PRIMARY KEY (id), 
	CONSTRAINT uq_candidate_content_hash UNIQUE (content_hash)
);
INSERT INTO "candidate" VALUES(1,'c199fe22f334ce37415feb28d9afd398a27110d062e076e8740c8d36562dda53','composition','llama','A+M','mini',33088,82176.0,16384,'2026-11-25 14:58:14.402169');
INSERT INTO "candidate" VALUES(2,'7ce26d48fa71f8e1c9622d5d2ed6a8d542a554fa09d2c32ccef65f48ea5dacd6','composition',NULL,'2M','mini',33216,66048.0,0,'2026-11-25 15:04:52.661507');
INSERT INTO "candidate" VALUES(3,'85754cca46c36c7e7fb6473b48715f7005e86c6667f1fcbc834b0beb0713d2a2','composition',NULL,'M+A','mini',33088,82176.0,16384,'2026-11-25 15:04:53.476955');
CREATE TABLE decision (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	what VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	numbers JSON NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_decision PRIMARY KEY (id), 
	CONSTRAINT fk_decision_campaign_id FOREIGN KEY(campaign_id) REFERENCES campaign (id)
);
INSERT INTO "decision" VALUES(1,1,'confirm','the best 1 of each arm, and the references','{"finalists": {"search": [2], "random": [2]}, "candidates": [1, 2]}','2026-11-25 15:04:55.176648');
CREATE TABLE environment (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	session VARCHAR NOT NULL, 
	git_commit VARCHAR, 
	git_dirty BOOLEAN, 
	packages JSON NOT NULL, 
	device VARCHAR NOT NULL, 
	sandbox VARCHAR NOT NULL, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_environment PRIMARY KEY (id), 
	CONSTRAINT fk_environment_campaign_id FOREIGN KEY(campaign_id) REFERENCES campaign (id)
);
INSERT INTO "environment" VALUES(1,1,'28771-1795618694341349378',NULL,NULL,'{"archwright": "0.1.0", "torch": "2.13.0+cpu", "ray": "2.60.0", "sqlalchemy": "2.1.9", "anthropic": "2.14.0", "openai": "3.57.0", "numpy": "2.4.6", "scipy": "1.17.1"}','cpu x86_64 AVX512','none: compositions only, no written code','2026-11-25 14:58:14.380081');
CREATE TABLE evaluation (
	id INTEGER NOT NULL, 
	candidate_id INTEGER NOT NULL, 
	profile VARCHAR NOT NULL, 
	rung INTEGER NOT NULL, 
	seed INTEGER NOT NULL, 
	sealed BOOLEAN NOT NULL, 
	state VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	lease VARCHAR, 
	failure VARCHAR, 
	detail VARCHAR NOT NULL, 
	queued DATETIME NOT NULL, 
	started DATETIME, 
	finished DATETIME, 
	steps INTEGER NOT NULL, 
	tokens INTEGER NOT NULL, 
	flops DOUBLE NOT NULL, 
	seconds DOUBLE NOT NULL, 
	checkpoint VARCHAR, 
	CONSTRAINT pk_evaluation PRIMARY KEY (id), 
	CONSTRAINT fk_evaluation_candidate_id FOREIGN KEY(candidate_id) REFERENCES candidate (id), 
	CONSTRAINT fk_evaluation_checkpoint FOREIGN KEY(checkpoint) REFERENCES artifact (sha256), 
	CONSTRAINT uq_evaluation_candidate_id_profile_rung_seed UNIQUE (candidate_id, profile, rung, seed)
);
INSERT INTO "evaluation" VALUES(1,1,'lra-standins#3fc64021',0,457858462,0,'done',1,NULL,NULL,'','2026-11-25 14:58:14.405170','2026-11-25 14:58:14.415252','2026-11-25 15:04:48.683631',40,102400,32794214400.0,3.94253546433999872526e+02,NULL);
INSERT INTO "evaluation" VALUES(2,1,'lra-standins#3fc64021',0,1842898540,0,'done',1,NULL,NULL,'','2026-11-25 14:58:14.405696','2026-11-25 15:04:48.696357','2026-11-25 15:04:52.644214',40,102400,32794214400.0,3.94533501700061606243e+00,NULL);
INSERT INTO "evaluation" VALUES(3,2,'lra-standins#3fc64021',0,457858462,0,'done',1,NULL,NULL,'','2026-11-25 15:04:52.669040','2026-11-25 15:04:52.671917','2026-11-25 15:04:53.442412',40,102400,20289945600.0,7.68339771999308140948e-01,NULL);
INSERT INTO "evaluation" VALUES(4,3,'lra-standins#3fc64021',0,457858462,0,'done',1,NULL,NULL,'','2026-11-25 15:04:53.477827','2026-11-25 15:04:53.480050','2026-11-25 15:04:55.166015',40,102400,32794214400.0,1.68379734299924166407e+00,NULL);
INSERT INTO "evaluation" VALUES(5,1,'lra-standins#3fc64021',0,2134734625,1,'done',1,NULL,NULL,'','2026-11-25 15:04:55.177773','2026-11-25 15:04:55.185247','2026-11-25 15:04:56.815663',40,102400,32794214400.0,1.62814173999868216924e+00,NULL);
INSERT INTO "evaluation" VALUES(6,1,'lra-standins#3fc64021',0,1456829575,1,'done',1,NULL,NULL,'','2026-11-25 15:04:55.178136','2026-11-25 15:04:56.818050','2026-11-25 15:04:58.474796',40,102400,32794214400.0,1.64993668599890952464e+00,NULL);
INSERT INTO "evaluation" VALUES(7,2,'lra-standins#3fc64021',0,2134734625,1,'done',1,NULL,NULL,'','2026-11-25 15:04:55.182976','2026-11-25 15:04:58.477816','2026-11-25 15:04:59.278028',40,102400,20289945600.0,0.797810911999477,NULL);
INSERT INTO "evaluation" VALUES(8,2,'lra-standins#3fc64021',0,1456829575,1,'done',1,NULL,NULL,'','2026-11-25 15:04:55.183357','2026-11-25 15:04:59.280763','2026-11-25 15:04:59.956395',40,102400,20289945600.0,6.68907112998567754402e-01,NULL);
CREATE TABLE gate_check (
	id INTEGER NOT NULL, 
	candidate_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	verdict VARCHAR NOT NULL, 
	detail VARCHAR NOT NULL, 
	seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_gate_check PRIMARY KEY (id), 
	CONSTRAINT fk_gate_check_candidate_id FOREIGN KEY(candidate_id) REFERENCES candidate (id)
);
CREATE TABLE llm_call (
	id INTEGER NOT NULL, 
	proposal_id INTEGER NOT NULL, 
	provider VARCHAR NOT NULL, 
	model VARCHAR NOT NULL, 
	operator VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	request_sha VARCHAR, 
	reply_sha VARCHAR, 
	outcome VARCHAR NOT NULL, 
	error VARCHAR NOT NULL, 
	http_attempts INTEGER NOT NULL, 
	input_tokens INTEGER, 
	output_tokens INTEGER, 
	cached_tokens INTEGER, 
	reasoning_tokens INTEGER, 
	latency_seconds DOUBLE, 
	cost_usd DOUBLE, 
	created DATETIME NOT NULL, 
	CONSTRAINT pk_llm_call PRIMARY KEY (id), 
	CONSTRAINT fk_llm_call_proposal_id FOREIGN KEY(proposal_id) REFERENCES proposal (id)
);
CREATE TABLE measurement (
	id INTEGER NOT NULL, 
	evaluation_id INTEGER NOT NULL, 
	metric VARCHAR NOT NULL, 
	split VARCHAR NOT NULL, 
	value DOUBLE NOT NULL, 
	CONSTRAINT pk_measurement PRIMARY KEY (id), 
	CONSTRAINT fk_measurement_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluation (id), 
	CONSTRAINT uq_measurement_evaluation_id_split_metric UNIQUE (evaluation_id, split, metric)
);
INSERT INTO "measurement" VALUES(1,1,'score','validation',0.8984375);
INSERT INTO "measurement" VALUES(2,1,'lra-text/accuracy','validation',0.8984375);
INSERT INTO "measurement" VALUES(3,1,'lra-text/macro_accuracy','validation',8.96825396825396747857e-01);
INSERT INTO "measurement" VALUES(4,1,'lra-text/loss','validation',5.46857158483285088479e-01);
INSERT INTO "measurement" VALUES(5,1,'lra-text/count','validation',128.0);
INSERT INTO "measurement" VALUES(6,1,'lra-text/score','validation',0.8984375);
INSERT INTO "measurement" VALUES(7,1,'lra-text/standin','validation',1.0);
INSERT INTO "measurement" VALUES(8,2,'score','validation',0.8125);
INSERT INTO "measurement" VALUES(9,2,'lra-text/accuracy','validation',0.8125);
INSERT INTO "measurement" VALUES(10,2,'lra-text/macro_accuracy','validation',8.15418828762045855285e-01);
INSERT INTO "measurement" VALUES(11,2,'lra-text/loss','validation',5.35684470635229614821e-01);
INSERT INTO "measurement" VALUES(12,2,'lra-text/count','validation',128.0);
INSERT INTO "measurement" VALUES(13,2,'lra-text/score','validation',0.8125);
INSERT INTO "measurement" VALUES(14,2,'lra-text/standin','validation',1.0);
INSERT INTO "measurement" VALUES(15,3,'score','validation',0.9140625);
INSERT INTO "measurement" VALUES(16,3,'lra-text/accuracy','validation',0.9140625);
INSERT INTO "measurement" VALUES(17,3,'lra-text/macro_accuracy','validation',9.14163614163614135499e-01);
INSERT INTO "measurement" VALUES(18,3,'lra-text/loss','validation',6.15441245785784407651e-01);
INSERT INTO "measurement" VALUES(19,3,'lra-text/count','validation',128.0);
INSERT INTO "measurement" VALUES(20,3,'lra-text/score','validation',0.9140625);
INSERT INTO "measurement" VALUES(21,3,'lra-text/standin','validation',1.0);
INSERT INTO "measurement" VALUES(22,4,'score','validation',0.8671875);
INSERT INTO "measurement" VALUES(23,4,'lra-text/accuracy','validation',0.8671875);
INSERT INTO "measurement" VALUES(24,4,'lra-text/macro_accuracy','validation',8.65323565323565357942e-01);
INSERT INTO "measurement" VALUES(25,4,'lra-text/loss','validation',0.54654801494839);
INSERT INTO "measurement" VALUES(26,4,'lra-text/count','validation',128.0);
INSERT INTO "measurement" VALUES(27,4,'lra-text/score','validation',0.8671875);
INSERT INTO "measurement" VALUES(28,4,'lra-text/standin','validation',1.0);
INSERT INTO "measurement" VALUES(29,5,'score','test',0.9296875);
INSERT INTO "measurement" VALUES(30,5,'lra-text/accuracy','test',0.9296875);
INSERT INTO "measurement" VALUES(31,5,'lra-text/macro_accuracy','test',9.31862745098039235713e-01);
INSERT INTO "measurement" VALUES(32,5,'lra-text/loss','test',5.62641418120770619992e-01);
INSERT INTO "measurement" VALUES(33,5,'lra-text/count','test',128.0);
INSERT INTO "measurement" VALUES(34,5,'lra-text/score','test',0.9296875);
INSERT INTO "measurement" VALUES(35,5,'lra-text/standin','test',1.0);
INSERT INTO "measurement" VALUES(36,6,'score','test',0.8515625);
INSERT INTO "measurement" VALUES(37,6,'lra-text/accuracy','test',0.8515625);
INSERT INTO "measurement" VALUES(38,6,'lra-text/macro_accuracy','test',8.44262295081967151233e-01);
INSERT INTO "measurement" VALUES(39,6,'lra-text/loss','test',4.96852031170382513192e-01);
INSERT INTO "measurement" VALUES(40,6,'lra-text/count','test',128.0);
INSERT INTO "measurement" VALUES(41,6,'lra-text/score','test',0.8515625);
INSERT INTO "measurement" VALUES(42,6,'lra-text/standin','test',1.0);
INSERT INTO "measurement" VALUES(43,7,'score','test',0.8125);
INSERT INTO "measurement" VALUES(44,7,'lra-text/accuracy','test',0.8125);
INSERT INTO "measurement" VALUES(45,7,'lra-text/macro_accuracy','test',8.00980392156862786023e-01);
INSERT INTO "measurement" VALUES(46,7,'lra-text/loss','test',6.07728972130740174861e-01);
INSERT INTO "measurement" VALUES(47,7,'lra-text/count','test',128.0);
INSERT INTO "measurement" VALUES(48,7,'lra-text/score','test',0.8125);
INSERT INTO "measurement" VALUES(49,7,'lra-text/standin','test',1.0);
INSERT INTO "measurement" VALUES(50,8,'score','test',0.671875);
INSERT INTO "measurement" VALUES(51,8,'lra-text/accuracy','test',0.671875);
INSERT INTO "measurement" VALUES(52,8,'lra-text/macro_accuracy','test',6.55737704918032848766e-01);
INSERT INTO "measurement" VALUES(53,8,'lra-text/loss','test',0.630859540131787);
INSERT INTO "measurement" VALUES(54,8,'lra-text/count','test',128.0);
INSERT INTO "measurement" VALUES(55,8,'lra-text/score','test',0.671875);
INSERT INTO "measurement" VALUES(56,8,'lra-text/standin','test',1.0);
CREATE TABLE proposal (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	slot INTEGER NOT NULL, 
	agent_id INTEGER NOT NULL, 
	seed INTEGER NOT NULL, 
	seen INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	rung INTEGER NOT NULL, 
	operator VARCHAR, 
	reason VARCHAR NOT NULL, 
	hypothesis VARCHAR NOT NULL, 
	reasoning VARCHAR NOT NULL, 
	expected_effect VARCHAR NOT NULL, 
	failure VARCHAR, 
	detail VARCHAR NOT NULL, 
	candidate_id INTEGER, 
	asked DATETIME NOT NULL, 
	answered DATETIME, 
	CONSTRAINT pk_proposal PRIMARY KEY (id), 
	CONSTRAINT fk_proposal_agent_id FOREIGN KEY(agent_id) REFERENCES agent (id), 
	CONSTRAINT fk_proposal_campaign_id FOREIGN KEY(campaign_id) REFERENCES campaign (id), 
	CONSTRAINT fk_proposal_candidate_id FOREIGN KEY(candidate_id) REFERENCES candidate (id), 
	CONSTRAINT uq_proposal_campaign_id_slot UNIQUE (campaign_id, slot)
);
INSERT INTO "proposal" VALUES(1,1,0,1,554608858,0,'accepted',0,'draft','one-shot: every slot is a draft','a reference','','',NULL,'',1,'2026-11-25 14:58:14.387003','2026-11-25 14:58:14.394316');
INSERT INTO "proposal" VALUES(2,1,1,2,1473681362,1,'accepted',0,'draft','the population of 16 is being filled','a uniform draw','','',NULL,'',2,'2026-11-25 15:04:52.655452','2026-11-25 15:04:52.660652');
INSERT INTO "proposal" VALUES(3,1,2,3,2049495396,2,'accepted',0,'draft','one-shot: every slot is a draft','a uniform draw','','',NULL,'',2,'2026-11-25 15:04:53.445979','2026-11-25 15:04:53.454677');
INSERT INTO "proposal" VALUES(4,1,3,2,349996241,3,'accepted',0,'draft','the population of 16 is being filled','a uniform draw','','',NULL,'',1,'2026-11-25 15:04:53.458758','2026-11-25 15:04:53.463624');
INSERT INTO "proposal" VALUES(5,1,4,3,679165494,4,'accepted',0,'draft','one-shot: every slot is a draft','a uniform draw','','',NULL,'',3,'2026-11-25 15:04:53.467350','2026-11-25 15:04:53.476123');
CREATE TABLE proposal_parent (
	proposal_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	candidate_id INTEGER NOT NULL, 
	CONSTRAINT pk_proposal_parent PRIMARY KEY (proposal_id, position), 
	CONSTRAINT fk_proposal_parent_candidate_id FOREIGN KEY(candidate_id) REFERENCES candidate (id), 
	CONSTRAINT fk_proposal_parent_proposal_id FOREIGN KEY(proposal_id) REFERENCES proposal (id)
);
CREATE INDEX ix_decision_campaign_id ON decision (campaign_id);
CREATE INDEX ix_environment_campaign_id ON environment (campaign_id);
CREATE INDEX ix_evaluation_state ON evaluation (state);
CREATE INDEX ix_gate_check_candidate_id ON gate_check (candidate_id);
CREATE INDEX ix_proposal_agent_id ON proposal (agent_id);
CREATE INDEX ix_proposal_candidate_id ON proposal (candidate_id);
CREATE INDEX ix_budget_entry_campaign_id ON budget_entry (campaign_id);
CREATE INDEX ix_budget_entry_proposal_id ON budget_entry (proposal_id);
CREATE INDEX ix_llm_call_proposal_id ON llm_call (proposal_id);
CREATE INDEX ix_proposal_parent_candidate_id ON proposal_parent (candidate_id);
CREATE VIEW leaderboard AS 
        SELECT c.id AS candidate, c.name, c.pattern, AVG(m.value) AS score, COUNT(*) AS evaluations,
               c.params, c.flops_per_token, c.state_bytes, e.profile, e.rung, e.sealed
        FROM candidate c JOIN evaluation e ON e.candidate_id = c.id
        JOIN measurement m ON m.evaluation_id = e.id AND m.metric = 'score'
        GROUP BY c.id, c.name, c.pattern, c.params, c.flops_per_token, c.state_bytes,
                 e.profile, e.rung, e.sealed;
CREATE VIEW lineage AS 
        SELECT p.candidate_id AS candidate, pp.candidate_id AS parent, pp.position, p.slot,
               a.name AS agent, p.operator, p.hypothesis
        FROM proposal_parent pp JOIN proposal p ON p.id = pp.proposal_id
        JOIN agent a ON a.id = p.agent_id;
CREATE VIEW spend AS 
        SELECT a.name AS agent, l.provider, l.model, COUNT(*) AS calls,
               SUM(l.input_tokens) AS input_tokens, SUM(l.output_tokens) AS output_tokens,
               SUM(l.cost_usd) AS known_usd,
               SUM(CASE WHEN l.cost_usd IS NULL THEN 1 ELSE 0 END) AS calls_without_price
        FROM llm_call l JOIN proposal p ON p.id = l.proposal_id JOIN agent a ON a.id = p.agent_id
        GROUP BY a.name, l.provider, l.model;
CREATE VIEW failures AS 
        SELECT 'proposal' AS what, p.id, p.slot, a.name AS agent, p.failure AS kind, p.detail,
               p.candidate_id AS candidate
        FROM proposal p JOIN agent a ON a.id = p.agent_id WHERE p.status = 'failed'
        UNION ALL
        SELECT 'evaluation', e.id, NULL, NULL, e.failure, e.detail, e.candidate_id
        FROM evaluation e WHERE e.state = 'failed';
COMMIT;
